"""What a log with several choices says of each; chat completions and legacy completions show them alike.

A choice that ends shows its finish reason at once. That of the last one waits for the terminal event, so
that a stream has something to show there too, with the cursor behind which nothing comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from formats.sse import Tail, accepted_of
from formats.transcript import Choice, Transcript
from schemas.events import ChoiceEnd, EndReason, Incomplete, ItemAdded, ItemDone, LogEvent, Terminal


def begins_choice(tail: Tail, index: int, event: ItemAdded) -> bool:
    """The item is the first one of its choice."""
    return not any(added.choice == event.choice for added in _items(tail, index))


def end_of_choice(tail: Tail, index: int, event: Terminal, choice: int | None = None) -> ChoiceEnd:
    """How a choice of a response that did not fail ended: the only one, or of several this one, or else the last."""
    if accepted_of(tail).request.choices > 1:
        for at in range(index - 1, 0, -1):
            found = tail[at].event
            if isinstance(found, ItemDone) and found.end is not None and choice in (None, found.end.choice):
                return found.end
    calls = sum(added.item == "function_call" for added in _items(tail, index))
    return ChoiceEnd(usage=event.usage, reason=end_reason(event), calls=calls)


def end_reason(event: Terminal) -> EndReason:
    """Of the only choice."""
    if isinstance(event, Incomplete):
        return "length" if event.reason == "max_output_tokens" else "content_filter"
    return "stop"


def ended_choices(transcript: Transcript) -> list[tuple[Choice, EndReason]]:
    """The choices of a response that was finished and did not fail, with why each ended."""
    accepted, terminal = transcript.accepted, transcript.terminal
    assert accepted is not None
    assert terminal is not None
    choices = [transcript.choice(index) for index in range(accepted.request.choices)]
    return [(choice, choice.end.reason if choice.end is not None else end_reason(terminal)) for choice in choices]


def _items(tail: Tail, count: int) -> Iterator[ItemAdded]:
    events: Iterator[LogEvent] = (entry.event for entry in islice(tail, count))
    return (event for event in events if isinstance(event, ItemAdded))
