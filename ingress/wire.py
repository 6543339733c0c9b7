"""The APIs as the routes see them: how a body is read, a stream written, an answer made."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.responses import Response

from formats.chat import chat_completion, encode_chat
from formats.completions import completion, encode_completions
from formats.embeddings import embedding_list
from formats.responses import encode_responses, response_object
from formats.sse import Encode
from formats.stored_chat import stored_chat_completion
from formats.transcript import Transcript, transcript_of
from ingress.errors import GenerationFailed, json_response
from ingress.openapi.operation import Parameter, Shown, Tag
from ingress.openapi.parameters import OF_A_RESPONSE
from ingress.tails import Tail
from responses.resolve import resolve_chat, resolve_completions, resolve_embeddings, resolve_responses
from schemas.answers.chat import ChatCompletion, ChatCompletionChunk, FailureChunk
from schemas.answers.completions import TextCompletion, TextCompletionChunk
from schemas.answers.embeddings import EmbeddingList
from schemas.answers.response_events import RESPONSE_EVENTS
from schemas.answers.responses import ResponseObject
from schemas.answers.stored_chat import StoredChatCompletion
from schemas.bodies import Body, ChatBody, CompletionsBody, EmbeddingsBody, ResponsesBody
from schemas.errors import (
    CapabilityMissing,
    ContextTooLong,
    DeadlineExceeded,
    EngineDead,
    EngineError,
    InvalidRequest,
    OpenChatError,
    ResponseCancelled,
    ResponseNotFound,
    SettingsError,
    UpstreamBrokeOff,
    UpstreamRefused,
    UpstreamUnavailable,
    WorkerLost,
)
from schemas.events import Cancelled, Failed, LogEvent
from schemas.ids import ResponseId, chat_id, completion_id, embedding_id
from schemas.models import DEFAULT_MODEL
from schemas.requests import Format, GenerationRequest

Headers = dict[str, str]
_MODEL = DEFAULT_MODEL["local"]
FAILURES = (
    CapabilityMissing,
    ContextTooLong,
    UpstreamRefused,
    ResponseCancelled,
    EngineError,
    WorkerLost,
    UpstreamBrokeOff,
    UpstreamUnavailable,
    EngineDead,
    DeadlineExceeded,
)


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """One API: requests in, streams and answers out."""

    format: Format
    body: type[Body]
    """One with a field `stream`, if it has a stream."""
    resolve: Callable[..., GenerationRequest]
    """Body and keyword arguments of `responses.resolve` → request."""
    encode: Encode | None
    """None: it has no stream."""
    answer: Callable[[Tail, Headers], Response]
    """The whole response as one object."""
    retrieved: Callable[[Tail, Headers], Response] | None = None
    """The same when it is asked for later, where that shows more."""
    path: str
    shown_id: Callable[[ResponseId], str]
    noun: str = "a response"
    """What it gives, for the document, as the rest."""
    example: dict[str, Any] = {}
    """Of a body."""
    tag: Tag = "Other formats"
    shows: Any = Any
    """The type of the whole answer; None: it is not JSON."""
    shows_later: Any = None
    """The same of `retrieved`."""
    events: tuple[Any, ...] = (Any,)
    """The types of what stands behind `data:` in a stream."""

    def location(self, response_id: ResponseId) -> Headers:
        """Where a stream that was cut goes on, or where the answer is."""
        path = f"{self.path}/{self.shown_id(response_id)}"
        return {"location": f"{path}?stream=true" if self.encode is not None else path}

    def show(self, tail: Tail, headers: Headers) -> Response:
        """The whole response when it is asked for later; raises as `answer` does."""
        return (self.retrieved or self.answer)(tail, headers)

    def check_shows(self, tail: Tail) -> None:
        """Vectors are shown by embeddings alone, and nothing else by them. Raises ResponseNotFound."""
        is_embedding = tail.accepted.request.embed is not None
        if is_embedding != (self.format == EMBEDDINGS.format):
            where = EMBEDDINGS.path if is_embedding else RESPONSES.path
            raise ResponseNotFound(f"This response is shown at {where}, not here.")


def shown_by(wire: Wire, *, is_later: bool = False, headers: tuple[Parameter, ...] = ()) -> Shown:
    """How the document describes its answers."""
    shows = wire.shows_later if is_later and wire.shows_later is not None else wire.shows
    types = (shows,) if shows is not None else ()
    return Shown(
        types=types,
        events=wire.events if wire.encode is not None else (),
        text="" if types else "text/plain",
        headers=(*headers, *OF_A_RESPONSE),
    )


def failures_of(wire: Wire) -> tuple[type[OpenChatError], ...]:
    """The errors by which it shows a response that failed; the Responses API shows the response instead."""
    return () if wire.format == RESPONSES.format else FAILURES


def finished_answer(make: Callable[[Transcript, Headers], Response]) -> Callable[[Tail, Headers], Response]:
    """For formats that show finished responses only."""

    def answer(tail: Tail, headers: Headers) -> Response:
        """Raises InvalidRequest for a response that is not finished, GenerationFailed."""
        transcript = transcript_of(tail.entries)
        if transcript.terminal is None:
            raise InvalidRequest("This response is not finished; read it with stream=true.", param="stream")
        check_not_failed(transcript.terminal)
        return make(transcript, headers)

    return answer


def check_not_failed(last: LogEvent) -> None:
    """Raises GenerationFailed or ResponseCancelled where this is the end of a response that has no answer."""
    match last:
        case Failed(error=error):
            raise GenerationFailed(error.code, error.message)
        case Cancelled():
            raise ResponseCancelled


def _json(make: Callable[[Transcript], Any]) -> Callable[[Tail, Headers], Response]:
    return finished_answer(lambda transcript, headers: json_response(make(transcript), headers=headers))


def _responses_answer(tail: Tail, headers: Headers) -> Response:
    """As it stands; a failed one says so itself."""
    return json_response(response_object(transcript_of(tail.entries)), headers=headers)


CHAT = Wire(
    format="chat",
    body=ChatBody,
    resolve=resolve_chat,
    encode=encode_chat,
    answer=_json(chat_completion),
    retrieved=_json(stored_chat_completion),
    path="/v1/chat/completions",
    shown_id=chat_id,
    noun="a chat completion",
    example={"model": _MODEL, "messages": [{"role": "user", "content": "Hello!"}], "stream": True},
    tag="Chat completions",
    shows=ChatCompletion,
    shows_later=StoredChatCompletion,
    events=(ChatCompletionChunk, FailureChunk),
)
RESPONSES = Wire(
    format="responses",
    body=ResponsesBody,
    resolve=resolve_responses,
    encode=encode_responses,
    answer=_responses_answer,
    path="/v1/responses",
    shown_id=str,
    example={"model": _MODEL, "input": "Hello!", "stream": True},
    tag="Responses",
    shows=ResponseObject,
    events=RESPONSE_EVENTS,
)
COMPLETIONS = Wire(
    format="completions",
    body=CompletionsBody,
    resolve=resolve_completions,
    encode=encode_completions,
    answer=_json(completion),
    path="/v1/completions",
    shown_id=completion_id,
    noun="a completion",
    example={"model": _MODEL, "prompt": "Once upon a time", "max_tokens": 64},
    tag="Completions",
    shows=TextCompletion,
    events=(TextCompletionChunk, FailureChunk),
)
EMBEDDINGS = Wire(
    format="embeddings",
    body=EmbeddingsBody,
    resolve=resolve_embeddings,
    encode=None,
    answer=_json(embedding_list),
    path="/v1/embeddings",
    shown_id=embedding_id,
    noun="embeddings",
    example={"model": "embedding-model", "input": ["Hello!", "Good bye!"]},
    tag="Embeddings",
    shows=EmbeddingList,
)
BUILT_IN = (CHAT, RESPONSES, COMPLETIONS, EMBEDDINGS)


def load_wires() -> list[Wire]:
    """The built-in ones, and those that installed packages bring by the entry point `openchat.wires`.

    Raises SettingsError for one that is no Wire, or that takes the path or name of another.
    """
    wires = list(BUILT_IN)
    for point in importlib.metadata.entry_points(group="openchat.wires"):
        try:
            wire = point.load()
        except (ImportError, AttributeError) as exc:
            raise SettingsError(f"the wire format {point.name!r} can not be loaded: {exc}") from exc
        if not isinstance(wire, Wire):
            raise SettingsError(f"the entry point {point.name!r} of openchat.wires is no ingress.wire.Wire")
        if any(wire.path == other.path or wire.format == other.format for other in wires):
            raise SettingsError(f"the wire format {point.name!r} takes the path or the name of another")
        wires.append(wire)
    return wires
