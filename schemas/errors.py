"""The error tree.

OpenChatError
├── RequestError                 the caller's fault, 4xx
│   ├── InvalidRequest           400  a field is wrong; `param` names it
│   │   ├── UnsupportedParameter 400  a known or unknown parameter that this server does not take
│   │   ├── CapabilityMissing    400  the model's engine can not do what the request needs
│   │   └── ImageUnavailable     400  an image that the request names by its URL can not be had
│   ├── InvalidCursor            400  malformed, or beyond the end of the stream
│   ├── StreamDiverged           409  a cursor from a branch that a failover lost
│   ├── AuthenticationError      401  no key, or a wrong one
│   ├── PermissionDenied         403  the key may not do this
│   ├── AccountConflict          409  there is such a tenant, or the key was revoked
│   ├── AccountNotFound          404  no such tenant or key
│   ├── ModelNotFound            404
│   ├── RouteNotFound            404
│   ├── ResponseNotFound         404  no log and no row (or another tenant's)
│   ├── ResponseLocked           409  it has not ended, or is not stored yet; retryable
│   ├── ConversationNotFound     404  no row (or another tenant's)
│   ├── ItemNotFound             404  the conversation has no such item
│   ├── ConversationLocked       409  another response in it has not ended; retryable
│   ├── ResponseCancelled        409  it has no whole answer; its events and the Responses API show what came
│   ├── MethodNotAllowed         405
│   ├── BadHttp                  400  what came is no HTTP; as the next three, answered before any route
│   ├── HeadTimeout              408
│   ├── HeadTooLarge             431
│   ├── BodyTimeout              408
│   ├── ClientLeft               499  the client hung up before its answer
│   ├── BodyTooLarge             413
│   ├── ContextTooLong           400  the prompt does not fit the model
│   └── UpstreamRefused          400  the remote API says that the request is wrong
├── StreamError                  a log, queue or bus does not hold what it must
│   ├── LogGone                  the log does not exist (expired or lost)
│   ├── LogUnfinished            the log has no end (yet)
│   ├── BadEntry                 an entry that does not parse
│   ├── LetterNotFound           no such dead letter
│   └── ProjectionLost           503  the broker has no API keys (yet, or after a data loss); retryable
├── BrokerError                  503  the broker refused or is away; retryable
│   ├── BrokerTimeout            503  outcome unknown
│   └── GroupMissing             503  the consumer group does not exist (yet, or after a data loss)
├── GatewayDrains                503  the response goes on; read it at another gateway; retryable
├── QueueFull                    503  the request queue is at its bound; retryable
├── TooManyConnections           503  this gateway's are at their bound; retryable
├── DeadlineExceeded             504  the response was not finished in time
├── Fenced                       another attempt owns the response; never shown to a caller
├── EngineError                  500  recoverable: this request failed, the engine lives
│   ├── UpstreamUnavailable      503  the remote API is away or overloaded; nothing was shown; retryable
│   ├── UpstreamBrokeOff         502  the remote API ended in the middle of an answer
│   ├── WorkerLost               500  the worker died and another can not continue its text
│   └── EngineDead               503  the engine is gone: the worker must restart it or exit
├── OutboundError                502  a place that a caller named can not be reached
│   └── AddressRefused           403  this server does not connect to such a place
├── ArchiveError                 503  the database is away, overloaded or not as it must be; retryable
│   └── RowRefused               500  the database refuses this row, however often it is tried
└── SettingsError                a setting or file is wrong; printed, exit code 2

Every class carries `code` (stable, for programs), `status` (HTTP) and `retryable`.
The docstring is the default message. `type` is the error type of OpenAI's error format.
"""

from __future__ import annotations

from typing import ClassVar


class OpenChatError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "server_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str = "", *, param: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.param = param
        super().__init__(self.message)

    @property
    def type(self) -> str:
        """The `type` of OpenAI's error format."""
        return "server_error"


class RequestError(OpenChatError):
    """The request can not be served as it stands."""

    code = "invalid_request"
    status = 400

    @property
    def type(self) -> str:
        return "invalid_request_error"


class InvalidRequest(RequestError):
    """A field of the request is wrong."""

    code = "invalid_value"


class UnsupportedParameter(InvalidRequest):
    """A parameter of the request is not supported here."""

    code = "unsupported_parameter"


class CapabilityMissing(InvalidRequest):
    """The model can not do what the request needs."""

    code = "capability_missing"


class ImageUnavailable(InvalidRequest):
    """An image that the request names by its URL can not be had."""

    code = "invalid_image_url"


class InvalidCursor(RequestError):
    """The cursor is malformed or lies beyond the end of the stream."""

    code = "invalid_cursor"


class StreamDiverged(RequestError):
    """The cursor points to an event that a broker failover lost; read the response from its start."""

    code = "stream_diverged"
    status = 409


class AuthenticationError(RequestError):
    """No valid API key was given; send 'Authorization: Bearer <key>'."""

    code = "invalid_api_key"
    status = 401


class PermissionDenied(RequestError):
    """The API key may not do this."""

    code = "insufficient_permissions"
    status = 403


class AccountNotFound(RequestError):
    """There is no such tenant or API key."""

    code = "account_not_found"
    status = 404


class AccountConflict(RequestError):
    """The tenant or API key is not in a state that allows this."""

    code = "account_conflict"
    status = 409


class ModelNotFound(RequestError):
    """The model does not exist; GET /v1/models lists those that do."""

    code = "model_not_found"
    status = 404


class ResponseNotFound(RequestError):
    """No response with this id."""

    code = "response_not_found"
    status = 404


class ResponseLocked(RequestError):
    """The response has not ended yet; try again when it has."""

    code = "response_locked"
    status = 409
    retryable = True


class ConversationNotFound(RequestError):
    """No conversation with this id."""

    code = "conversation_not_found"
    status = 404


class ItemNotFound(RequestError):
    """There is no item with this id."""

    code = "item_not_found"
    status = 404


class ConversationLocked(RequestError):
    """Another response in this conversation has not ended yet; try again when it has."""

    code = "conversation_locked"
    status = 409
    retryable = True


class ResponseCancelled(RequestError):
    """The response was cancelled; GET /v1/responses/{id} shows what had come."""

    code = "cancelled"
    status = 409


class RouteNotFound(RequestError):
    """There is nothing at this address."""

    code = "route_not_found"
    status = 404


class MethodNotAllowed(RequestError):
    """This method is not allowed here."""

    code = "method_not_allowed"
    status = 405


class BadHttp(RequestError):
    """What was sent is no valid HTTP request."""

    code = "bad_http"


class HeadTimeout(RequestError):
    """The headers of the request did not arrive in time."""

    code = "head_timeout"
    status = 408


class HeadTooLarge(RequestError):
    """Request line and headers are larger than this server takes."""

    code = "head_too_large"
    status = 431


class BodyTimeout(RequestError):
    """The request body did not arrive in time."""

    code = "body_timeout"
    status = 408


class ClientLeft(RequestError):
    """The client hung up before its answer."""

    code = "client_left"
    status = 499


class BodyTooLarge(RequestError):
    """The request body is larger than this server takes."""

    code = "body_too_large"
    status = 413


class ContextTooLong(RequestError):
    """The prompt does not fit the model's context; shorten it."""

    code = "context_length_exceeded"

    def __init__(self, message: str = "", *, param: str | None = None, tokens: int = 0, context: int = 0) -> None:
        """`tokens` of the prompt and `context`: what was counted, 0 where it is not known."""
        super().__init__(message, param=param)
        self.tokens = tokens
        self.context = context


class UpstreamRefused(RequestError):
    """The remote API refused the request."""

    code = "upstream_refused"


class StreamError(OpenChatError):
    """A stream does not hold what it must."""

    code = "stream_error"


class LogGone(StreamError):
    """The response log does not exist."""

    code = "log_gone"


class LogUnfinished(StreamError):
    """The response log has no end."""

    code = "log_unfinished"


class BadEntry(StreamError):
    """A stream entry does not parse."""

    code = "bad_entry"


class LetterNotFound(StreamError):
    """There is no such dead letter."""

    code = "letter_not_found"


class ProjectionLost(StreamError):
    """The API keys can not be checked at the moment; try again."""

    code = "keys_unavailable"
    status = 503
    retryable = True


class BrokerError(OpenChatError):
    """The broker is away or refused; try again."""

    code = "broker_unavailable"
    status = 503
    retryable = True


class BrokerTimeout(BrokerError):
    """The broker did not answer in time; the outcome is unknown."""

    code = "broker_timeout"


class GroupMissing(BrokerError):
    """The consumer group does not exist."""

    code = "group_missing"


class GatewayDrains(OpenChatError):
    """This gateway is going away; the response goes on: read it at its Location, from another gateway."""

    code = "gateway_drains"
    status = 503
    retryable = True


class QueueFull(OpenChatError):
    """Too many requests are queued for this model; try again later."""

    code = "queue_full"
    status = 503
    retryable = True


class TooManyConnections(OpenChatError):
    """This gateway has as many connections as it may have; try again, or another."""

    code = "too_many_connections"
    status = 503
    retryable = True


class DeadlineExceeded(OpenChatError):
    """The response was not finished before its deadline."""

    code = "deadline_exceeded"
    status = 504


class Fenced(OpenChatError):
    """Another attempt owns this response."""

    code = "fenced"


class EngineError(OpenChatError):
    """The engine failed at this request."""

    code = "engine_error"


class UpstreamUnavailable(EngineError):
    """The remote API is away or overloaded; try again."""

    code = "upstream_unavailable"
    status = 503
    retryable = True


class UpstreamBrokeOff(EngineError):
    """The remote API ended in the middle of an answer."""

    code = "upstream_broke_off"
    status = 502


class WorkerLost(EngineError):
    """The worker died, and what it had begun can not be continued by another."""

    code = "worker_lost"


class EngineDead(EngineError):
    """The engine died."""

    code = "engine_dead"
    status = 503
    retryable = True


class OutboundError(OpenChatError):
    """A place that was named can not be reached."""

    code = "outbound_failed"
    status = 502


class AddressRefused(OutboundError):
    """This server does not connect to such a place."""

    code = "address_refused"
    status = 403


class ArchiveError(OpenChatError):
    """The archive is away or refused; try again."""

    code = "archive_unavailable"
    status = 503
    retryable = True


class RowRefused(ArchiveError):
    """The archive refuses this row, however often it is tried."""

    code = "row_refused"
    status = 500
    retryable = False


class SettingsError(OpenChatError):
    """A setting is wrong."""

    code = "settings_error"


def all_errors() -> list[type[OpenChatError]]:
    """Every class of the tree above, the root first."""
    found: list[type[OpenChatError]] = [OpenChatError]
    for cls in found:
        found.extend(sub for sub in cls.__subclasses__() if sub.__module__ == __name__)
    return found


def type_of_code(code: str) -> str:
    """The `type` of OpenAI's error format that belongs to an error's code, as a log keeps it."""
    classes = [cls for cls in all_errors() if cls.code == code]
    return "invalid_request_error" if classes and issubclass(classes[0], RequestError) else "server_error"
