"""What a log says so far: its events folded into one value."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from schemas.errors import BadEntry
from schemas.events import (
    TERMINAL,
    Accepted,
    Cancelled,
    Completed,
    Entry,
    EntryId,
    Failed,
    Fence,
    Incomplete,
    InProgress,
    ItemAdded,
    ItemDone,
    LogEvent,
    PartAdded,
    PartDone,
    Queued,
    Terminal,
    Text,
    TextDone,
)


class Status(StrEnum):
    """Where a response stands, in the words of the Responses API."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    CANCELLED = "cancelled"


_ENDS = frozenset({Status.COMPLETED, Status.INCOMPLETE, Status.FAILED, Status.CANCELLED})
TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.IN_PROGRESS, Status.FAILED, Status.CANCELLED}),
    Status.IN_PROGRESS: _ENDS,
    Status.COMPLETED: frozenset(),
    Status.INCOMPLETE: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}
_STATUS_OF: dict[type, Status] = {
    InProgress: Status.IN_PROGRESS,
    Completed: Status.COMPLETED,
    Incomplete: Status.INCOMPLETE,
    Failed: Status.FAILED,
    Cancelled: Status.CANCELLED,
}


def status_of(terminal: Terminal) -> Status:
    """The status that a terminal event gives a response."""
    return _STATUS_OF[type(terminal)]


def advance(status: Status, target: Status) -> Status:
    """The next status; raises BadEntry where the table does not allow it."""
    if target not in TRANSITIONS[status]:
        raise BadEntry(f"a response can not go from {status} to {target}")
    return target


class Transcript:
    """A log folded entry by entry.

    Invariant: `next_number` is the number of the next entry with a sequence; entries
    must follow on without a hole (`add` raises BadEntry), fences may stand between.
    """

    def __init__(self) -> None:
        self.accepted: Accepted | None = None
        self.status = Status.QUEUED
        self.last_id = EntryId(0, 0)
        self.last_t = 0
        self.next_number = 1
        self.attempts = 0
        """Attempts that began (handed-back markers are not counted)."""
        self.empty_attempts = 0
        """Attempts since the last text that added none and were not handed back."""
        self.fence: Fence | None = None
        """The last fence."""
        self.has_item = False
        self.item_open = False
        self.part_open = False
        self.text_open = False
        self.tokens: list[int] = []
        self.untracked_text = False
        """Some text has no token ids, so an engine can not continue it."""
        self.terminal: Terminal | None = None
        self.first_text_ms: int | None = None
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def has_text(self) -> bool:
        return self.first_text_ms is not None

    def add(self, entry: Entry) -> None:
        """Take in the next entry; raises BadEntry where it does not follow on."""
        event = entry.event
        if entry.id <= self.last_id or (not entry.id.is_fence and entry.id.number != self.next_number):
            raise BadEntry(f"entry {entry.id} does not follow {self.last_id} (next is {self.next_number})")
        self.last_id = entry.id
        if isinstance(event, Fence):
            self.last_t = max(self.last_t, event.t)
            self._add_fence(event)
        else:
            self.note(event)

    def note(self, event: LogEvent) -> None:
        """Take in the next event with a sequence, whatever its entry id will be; raises BadEntry."""
        self.last_t = max(self.last_t, event.t)
        self.next_number += 1
        self._add_event(event)

    def _add_fence(self, event: Fence) -> None:
        if event.released:
            self.empty_attempts = max(0, self.empty_attempts - 1)
        else:
            self.attempts += 1
            self.empty_attempts += 1
        self.fence = event

    def _add_event(self, event: LogEvent) -> None:
        match event:
            case Text(t=t, delta=delta, tokens=tokens):
                self._pieces.append(delta)
                self.tokens.extend(tokens)
                self.untracked_text |= bool(delta) and not tokens
                self.empty_attempts = 0
                if self.first_text_ms is None:
                    self.first_text_ms = t
            case Accepted():
                self.accepted = event
            case ItemAdded():
                self.has_item = self.item_open = True
            case PartAdded():
                self.part_open = self.text_open = True
            case TextDone():
                self.text_open = False
            case PartDone():
                self.part_open = False
            case ItemDone():
                self.item_open = False
            case Queued():
                pass
            case _:
                self.status = advance(self.status, _STATUS_OF[type(event)])
                if isinstance(event, TERMINAL):
                    self.terminal = event


def transcript_of(entries: Iterable[Entry]) -> Transcript:
    """Fold a whole log; raises BadEntry."""
    transcript = Transcript()
    for entry in entries:
        transcript.add(entry)
    return transcript


def closing_events(transcript: Transcript, t: int, *, complete: bool) -> list[LogEvent]:
    """The structure events that must stand between the last text and a terminal event."""
    events: list[LogEvent] = []
    if transcript.text_open:
        events.append(TextDone(t=t))
    if transcript.part_open:
        events.append(PartDone(t=t))
    if transcript.item_open:
        events.append(ItemDone(t=t, status="completed" if complete else "incomplete"))
    return events
