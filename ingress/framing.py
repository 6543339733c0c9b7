"""What a stream has beside what is made from the entries: its kind, its heartbeat, and how it ends."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from formats.sse import DONE, frame
from ingress.errors import error_body
from ingress.tails import Tail


class BrokenOff(Exception):
    """The stream ends without its end, so that its client can see that."""


class Framing(msgspec.Struct, frozen=True, kw_only=True):
    """Of one format, or of several that are alike in this."""

    media_type: str = "text/event-stream"
    has_heartbeat: bool = True
    last_words: Callable[[Tail], bytes | None]
    """Of a tail that is over; None: the connection is broken off."""
    drains: bytes | None
    """Where the gateway drains; None: as above."""
    headers: dict[str, str] = {}


def sse_last_words(tail: Tail) -> bytes:
    """An error is one event that each format reads as its own."""
    if tail.error is None:
        return DONE
    message = tail.error.message
    body = {"type": "error", "code": tail.error.code, "message": message, "param": None, "errorText": message}
    return frame(msgspec.json.encode(body | error_body(tail.error)), event="error") + DONE


SSE = Framing(
    last_words=sse_last_words,
    # Neither this nor the heartbeat ends with an empty line: once it has seen an id, OpenAI's client (3.57) takes
    # each empty line for the end of an event, and fails at one without data.
    drains=b"retry: 1000\n: this gateway drains; the stream goes on at another, after the last id\n",
)
