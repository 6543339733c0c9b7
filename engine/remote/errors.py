"""Errors of the official client as ours, and whose fault they are.

Messages of a remote API may hold anything: they are cut, and never hold the key.
"""

from __future__ import annotations

import contextlib
import email.utils
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
import msgspec
import openai

from schemas.errors import (
    ContextTooLong,
    EngineError,
    RequestError,
    UpstreamBrokeOff,
    UpstreamRefused,
    UpstreamUnavailable,
)

_MAX_MESSAGE = 500
_OURS = frozenset({400, 404, 405, 409, 413, 415, 422, 501})
"""Status codes that say that the request is at fault: another upstream would say the same."""
_AGAIN = frozenset({408, 429})
"""Beside 5xx: it may go well in a moment."""
_TOO_LONG_CODES = ("context_length_exceeded", "exceed_context_size_error")
_TOO_LONG_WORDS = ("maximum context length", "is too large to process")
"""Of vLLM, and of llama.cpp for embeddings (with status 500)."""


class UpstreamFault(Exception):
    """A try failed and the request is not to blame: another upstream may do better."""

    def __init__(
        self, error: EngineError, *, reason: str, can_retry: bool = True, retry_after_s: float | None = None
    ) -> None:
        super().__init__(error.message)
        self.error = error
        """What the request fails with if nobody serves it."""
        self.reason = reason
        """A word for logs: nothing of the request is in it."""
        self.can_retry = can_retry
        """The same upstream may do better in a moment."""
        self.retry_after_s = retry_after_s
        """The upstream's own word."""


@contextlib.contextmanager
def map_errors(key_name: str) -> Iterator[None]:
    """Raises UpstreamFault, UpstreamRefused or ContextTooLong; `key_name` is the variable that holds the key."""
    try:
        yield
    except openai.APIStatusError as exc:
        raise _status_error(exc, key_name) from exc
    except openai.APITimeoutError as exc:
        error = UpstreamUnavailable("The upstream did not answer in time.")
        can_retry = isinstance(exc.__cause__, httpx2.ConnectTimeout)  # else it has a queue: the wait would begin anew
        raise UpstreamFault(error, reason="no answer in time", can_retry=can_retry) from exc
    except openai.APIConnectionError as exc:
        raise UpstreamFault(UpstreamUnavailable("The upstream can not be reached."), reason="no connection") from exc
    except (httpx2.HTTPError, httpx2.StreamError) as exc:  # they come while the stream is read
        name = type(exc).__name__
        can_retry = not isinstance(exc, httpx2.TimeoutException)
        broke_off = UpstreamBrokeOff(f"The upstream broke off: {name}.")
        raise UpstreamFault(broke_off, reason=name, can_retry=can_retry) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise nonsense("The upstream sent what is not in OpenAI's format.") from exc


def nonsense(message: str) -> UpstreamFault:
    """It does not speak as it should: asked again it would say the same."""
    return UpstreamFault(EngineError(message), reason="nonsense", can_retry=False)


def stream_error(error: Any) -> UpstreamFault | RequestError:
    """For an `error` within a stream whose status said that all is well."""
    code = error.get("code") if isinstance(error, dict) else None
    if _is_too_long(error) or code in _OURS:
        return _refused(code, error)
    return UpstreamFault(
        EngineError(f"The upstream failed: {_message(error)}"), reason="an error in its stream", can_retry=False
    )


def _status_error(exc: openai.APIStatusError, key_name: str) -> UpstreamFault | RequestError:
    status = exc.status_code
    if status in _OURS or _is_too_long(exc.body):
        return _refused(status, exc.body)
    reason = str(status)
    if status in (401, 403):
        error = EngineError(f"The upstream refused this server's key ({status}); set {key_name}.")
        return UpstreamFault(error, reason=reason, can_retry=False)
    headers = exc.response.headers
    can_retry = (status in _AGAIN or status >= 500) and headers.get("x-should-retry") != "false"
    if status == 429:
        words = "The upstream has too many requests (429); try again later."
    else:
        words = f"The upstream failed ({status}): {_message(exc.body)}"
    return UpstreamFault(
        UpstreamUnavailable(words), reason=reason, can_retry=can_retry, retry_after_s=retry_after_s(headers)
    )


def _refused(status: Any, body: Any) -> RequestError:
    if _is_too_long(body):
        return ContextTooLong(f"The prompt does not fit the model's context: {_message(body)}")
    return UpstreamRefused(f"The upstream refused the request ({status}): {_message(body)}")


def _is_too_long(body: Any) -> bool:
    if not isinstance(body, dict):
        return False
    named = body.get("code") in _TOO_LONG_CODES or body.get("type") in _TOO_LONG_CODES
    return named or any(words in str(body.get("message")) for words in _TOO_LONG_WORDS)


def _message(error: Any) -> str:
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    return str(error)[:_MAX_MESSAGE]


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long to leave it alone: `retry-after-ms`, or `Retry-After` in seconds or as a date; None: it does not say."""
    for name, divisor in (("retry-after-ms", 1000), ("retry-after", 1)):
        with contextlib.suppress(ValueError):
            wait_s = float(headers.get(name, "")) / divisor
            return wait_s if math.isfinite(wait_s) and wait_s > 0 else None
    date = email.utils.parsedate_tz(headers.get("retry-after", ""))
    wait_s = email.utils.mktime_tz(date) - time.time() if date else 0.0
    return wait_s if wait_s > 0 else None
