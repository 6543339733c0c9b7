"""Forks: a new response that begins with the first events of another, and goes on from there.

The copies stand behind `queued` in attempt 0 of the new log, one for one, so that up to the cut both streams have the
same sequences. Whoever takes it goes on as after a takeover, so a cut must leave something to go on from: nothing that
was written with the end, and no name of a call whose tokens come later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from formats.transcript import BEFORE_OUTPUT, Transcript
from responses.accept import Fork
from responses.continuation import obstacle
from responses.directory import Served
from schemas.bodies import ForkBody
from schemas.capabilities import Capabilities
from schemas.errors import CapabilityMissing, InvalidCursor, InvalidRequest
from schemas.events import (
    TERMINAL,
    Accepted,
    Arguments,
    ArgumentsDone,
    Completed,
    Entry,
    InProgress,
    ItemAdded,
    ItemDone,
    LogEvent,
    PartDone,
    Reasoning,
    ReasoningDone,
    Text,
    TextDone,
    encode_event,
)
from schemas.requests import Branch, GenerationRequest

MAX_EVENTS = 32_768
"""Copied at once, by one script: the broker needs 3 to 4 microseconds for each, and does nothing else meanwhile."""
MAX_BYTES = 16 << 20
_CLOSINGS = (TextDone, ReasoningDone, ArgumentsDone, PartDone, ItemDone)
_CHANGES = (
    *("max_output_tokens", "temperature", "top_p", "stop", "seed", "presence_penalty", "frequency_penalty"),
    *("metadata", "user", "background", "store"),
)
_UNKNOWN = Capabilities(continues=True, continues_text=True)
"""No worker has been seen: the one that comes will check."""


def cut(entries: Sequence[Entry], after: int, *, engine: str) -> Fork:
    """A response up to an event, as a fork begins. `entries` are by sequence; `engine` is to go on.

    Raises InvalidCursor, InvalidRequest.
    """
    accepted = _accepted(entries)
    if accepted.request.embed is not None:
        raise InvalidRequest("Embeddings have no output that could be gone on from.")
    if accepted.request.choices > 1:
        raise InvalidRequest("A response with several choices has no one output that could be gone on from.")
    last = last_cut(entries)
    if after > last:
        raise InvalidCursor(f"after: the last event that can be kept of this response is {last}.", param="after")
    if after >= MAX_EVENTS:
        raise InvalidRequest(f"after: a fork keeps {MAX_EVENTS} events at most.", param="after")
    events = [_copy(entry.event, engine) for entry in entries[BEFORE_OUTPUT : after + 1]]
    _check_end(events)
    _check_size(events)
    return Fork(accepted.id, after, events)


def last_cut(entries: Sequence[Entry]) -> int:
    """Sequence of the last event that a fork may keep: of what has ended, the last before what came with the end."""
    last = len(entries) - 1
    terminal = entries[last].event
    if not isinstance(terminal, TERMINAL):
        return last
    last -= 1
    while isinstance(entries[last].event, _CLOSINGS):
        last -= 1
    may_be_cut = isinstance(terminal, Completed) and bool(_accepted(entries).request.stop)
    return last - _is_rest(entries[last].event, may_be_cut=may_be_cut)


def _accepted(entries: Sequence[Entry]) -> Accepted:
    first = entries[0].event
    assert isinstance(first, Accepted)  # the first event of every log
    return first


def _is_rest(event: LogEvent, *, may_be_cut: bool) -> bool:
    """A last piece that may be no whole number of tokens: what a stop string left, or half of a character."""
    if not isinstance(event, Text | Reasoning | Arguments):
        return False
    return may_be_cut or event.delta.endswith("\N{REPLACEMENT CHARACTER}")


def _copy(event: LogEvent, engine: str) -> LogEvent:
    """It was all there when the fork was accepted."""
    if isinstance(event, InProgress):
        return InProgress(t=0, engine=engine)
    return msgspec.structs.replace(event, t=0)


def _check_end(events: Sequence[LogEvent]) -> None:
    last = events[-1] if events else None
    if isinstance(last, ItemAdded) and last.item == "function_call" and not last.tokens:
        raise InvalidCursor(
            "after: behind the name of a call and before its arguments a fork can not go on; choose another event.",
            param="after",
        )


def _check_size(events: Sequence[LogEvent]) -> None:
    if sum(len(encode_event(event)) for event in events) > MAX_BYTES:
        raise InvalidRequest(f"after: the events that a fork keeps may have {MAX_BYTES} bytes at most.", param="after")


def forked_request(accepted: Accepted, body: ForkBody, *, deadline_at_ms: int) -> GenerationRequest:
    """What was asked, with what the body changes. Raises InvalidRequest."""
    request = accepted.request
    if body.store and not request.store:
        raise InvalidRequest("A fork of a response that is not stored can not be stored.", param="store")
    changes: dict[str, Any] = {name: value for name in _CHANGES if (value := getattr(body, name)) is not None}
    if isinstance(body.stop, str):
        changes["stop"] = [body.stop]
    branch = Branch(request.conversation, accepted.id) if request.conversation else request.branch
    return msgspec.structs.replace(
        request,
        conversation="",
        branch=branch,
        continued=None,
        deadline_at_ms=deadline_at_ms,
        traceparent=None,
        include_usage=False,
        **changes,
    )


def check_fork(fork: Fork, request: GenerationRequest, served: Served) -> None:
    """Can it be gone on from? Raises CapabilityMissing, InvalidRequest."""
    kept = _folded(fork.events).choices[0]
    if not kept.pieces:
        return
    why = obstacle(served.capabilities or _UNKNOWN, request, kept)
    if why is not None:
        raise CapabilityMissing(
            f"The model {served.name!r} (engine {served.engine}) can not go on from event {fork.after}: {why}. "
            "A fork after 0 begins again.",
            param="after",
        )
    if any(stop in kept.text for stop in request.stop):
        raise InvalidRequest("stop: what is kept has it already; choose an earlier event.", param="stop")
    limit = request.max_output_tokens
    if limit is not None and kept.length >= limit:
        raise InvalidRequest(
            f"max_output_tokens counts what is kept too: that has {kept.length} tokens, and the maximum is {limit}.",
            param="max_output_tokens",
        )


def _folded(events: Iterable[LogEvent]) -> Transcript:
    transcript = Transcript()
    for event in events:
        transcript.note(event)
    return transcript


def fork_in(entries: Sequence[Entry]) -> Fork:
    """What the log of a fork begins with, for one that is to begin with the same."""
    accepted = _accepted(entries)
    assert accepted.fork_of is not None
    return Fork(accepted.fork_of, accepted.fork_after, [e.event for e in entries if e.id.attempt == 0][BEFORE_OUTPUT:])
