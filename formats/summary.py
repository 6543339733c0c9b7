"""What the archive's row says of a log. It is much cheaper than a transcript, which keeps every word."""

from __future__ import annotations

from collections.abc import Iterable

from formats.transcript import Status, follow
from schemas.errors import BadEntry
from schemas.events import (
    TERMINAL,
    Accepted,
    Arguments,
    Embedding,
    EntryId,
    Fence,
    InProgress,
    ItemAdded,
    LogEvent,
    Reasoning,
    Terminal,
    Text,
    parse_entry_id,
)


class Summary:
    """A whole log, fences included; what its members mean, `Transcript` says."""

    def __init__(self) -> None:
        self.accepted: Accepted | None = None
        self.terminal: Terminal | None = None
        self.status = Status.QUEUED
        self.attempts = 0
        self.calls = 0
        self.first_text_ms: int | None = None
        self.engine = ""
        """Which one began it; empty: none did, or it did not say."""

    def note(self, event: LogEvent) -> None:
        """Take in the next event; raises BadEntry where it can not come now."""
        match event:
            case Text() | Reasoning() | Arguments() | Embedding():
                self._note_output(event.t)
            case ItemAdded(item="function_call"):
                self.calls += 1
                self._note_output(event.t)
            case Fence():
                self.attempts += not event.released
            case Accepted():
                self.accepted = event
            case _:
                self._note_status(event)

    def _note_output(self, t: int) -> None:
        if self.first_text_ms is None:
            self.first_text_ms = t

    def _note_status(self, event: LogEvent) -> None:
        self.status = follow(self.status, event)
        if isinstance(event, InProgress):
            self.engine = event.engine
        elif isinstance(event, TERMINAL):
            self.terminal = event


def summary_of(ids: Iterable[str], events: Iterable[LogEvent]) -> Summary:
    """Fold a whole log; raises BadEntry where an entry does not follow on, as a transcript does."""
    summary = Summary()
    attempt, last_number, next_number = 0, 0, 1
    for text, event in zip(ids, events, strict=True):
        is_fence = type(event) is Fence
        # the usual entry, which is not parsed: one more of the same attempt
        if not is_fence and last_number < next_number and text == f"{attempt}-{next_number}":
            last_number = next_number
        else:
            found = _following(text, EntryId(attempt, last_number), next_number)
            attempt, last_number = found.attempt, found.number
        next_number += not is_fence
        if type(event) is not Text or summary.first_text_ms is None:
            summary.note(event)
        if attempt == 0:
            summary.first_text_ms = None  # copied, not generated
    return summary


def _following(text: str, last: EntryId, next_number: int) -> EntryId:
    found = parse_entry_id(text)
    if found is None:
        raise BadEntry(f"log entry id {text!r} is malformed")
    if found <= last or (not found.is_fence and found.number != next_number):
        raise BadEntry(f"entry {found} does not follow {last} (next is {next_number})")
    return found
