"""Server-sent events as bytes: LF line ends, JSON on one line, each event whole.

LF because several clients split on it alone (the Open Responses suite among them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from schemas.events import Accepted, Entry, LogEvent

DONE = b"data: [DONE]\n\n"

Tail = Sequence[Entry]
"""The entries of a log by sequence: no fences, no holes, from 0."""

Encode = Callable[[Tail, int], bytes]
"""The wire events that are made from the entry with one sequence; may be empty.

The `id:` (the log's entry id) stands on the last of them only, so a client that was cut
off between two repeats the entry as a whole.
"""


def frame(data: bytes, *, event: str = "", entry_id: str = "") -> bytes:
    """One SSE event; `data` has no line end in it."""
    head = f"event: {event}\n" if event else ""
    tail = f"\nid: {entry_id}\n\n" if entry_id else "\n\n"
    return b"%sdata: %s%s" % (head.encode(), data, tail.encode())


def accepted_of(tail: Tail) -> Accepted:
    """What was asked."""
    first = tail[0].event
    assert isinstance(first, Accepted)  # the first event of every log
    return first


def is_first_choice(event: LogEvent) -> bool:
    """For formats that show one answer: of a piece, or of an item that is added."""
    return not getattr(event, "choice", 0)
