"""What a log says so far: its events folded into one value."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

from schemas.errors import BadEntry
from schemas.events import (
    TERMINAL,
    Accepted,
    Arguments,
    ArgumentsDone,
    Cancelled,
    Completed,
    Embedding,
    Entry,
    EntryId,
    Failed,
    Fence,
    Incomplete,
    InProgress,
    ItemAdded,
    ItemDone,
    ItemKind,
    LogEvent,
    PartAdded,
    PartDone,
    Queued,
    Reasoning,
    ReasoningDone,
    Terminal,
    Text,
    TextDone,
)
from schemas.logprobs import TokenLogprob


class Status(StrEnum):
    """Where a response stands, in the words of the Responses API."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    CANCELLED = "cancelled"


BEFORE_OUTPUT = 2
"""Events that every log begins with: accepted and queued."""
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


def follow(status: Status, event: LogEvent) -> Status:
    """The status after an event; raises BadEntry where it can not come now."""
    target = _STATUS_OF.get(type(event))
    return status if target is None else advance(status, target)


def advance(status: Status, target: Status) -> Status:
    """The next status; raises BadEntry where the table does not allow it."""
    if target not in TRANSITIONS[status]:
        raise BadEntry(f"a response can not go from {status} to {target}")
    return target


class Item:
    """An output item as far as it is there."""

    __slots__ = (
        "call",
        "content_open",
        "index",
        "is_open",
        "kind",
        "logprobs",
        "name",
        "part_open",
        "pieces",
        "status",
    )

    def __init__(self, added: ItemAdded) -> None:
        self.kind: ItemKind = added.item
        self.index = added.output_index
        self.name = added.name
        self.call = added.call
        self.pieces: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.is_open = True
        self.part_open = False
        self.content_open = added.item == "function_call"
        """Pieces may follow: the text, the reasoning or the arguments are not done."""
        self.status: Literal["in_progress", "completed", "incomplete"] = "in_progress"

    @property
    def content(self) -> str:
        """The text, the reasoning or the arguments so far."""
        return "".join(self.pieces)


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
        """Attempts since the last output that added none and were not handed back."""
        self.fence: Fence | None = None
        """The last fence."""
        self.items: list[Item] = []
        self.open_item: Item | None = None
        self.calls = 0
        """Function calls so far."""
        self.tokens: list[int] = []
        """Ids that everything so far stands for, reasoning and calls as well."""
        self.pieces = 0
        """Pieces of output so far."""
        self.untracked_text = False
        """Some output has no token ids, so an engine can not continue it from ids."""
        self.copied = 0
        """So many of its events a fork has from another log: they stand behind `queued` in attempt 0."""
        self.copied_pieces = 0
        self.copied_tokens = 0
        """Of `pieces` and `tokens`."""
        self.vectors: list[str] = []
        """As the Embedding events have them."""
        self.embedded_tokens = 0
        """Of the inputs that the vectors stand for."""
        self.terminal: Terminal | None = None
        self.first_text_ms: int | None = None
        """When the first piece of output came that was generated for it."""

    @property
    def text(self) -> str:
        """Of all messages: without reasoning and calls."""
        return "".join(piece for item in self.items if item.kind == "message" for piece in item.pieces)

    @property
    def has_output(self) -> bool:
        return self.pieces > 0

    @property
    def has_own_output(self) -> bool:
        """More than what was copied."""
        return self.pieces > self.copied_pieces

    @property
    def length(self) -> int:
        """Of the output in tokens; where some have no ids, in pieces."""
        return self.pieces if self.untracked_text else len(self.tokens)

    @property
    def copied_length(self) -> int:
        """Of `length`."""
        return self.copied_pieces if self.untracked_text else self.copied_tokens

    @property
    def generated_tokens(self) -> int:
        """Without those that were copied."""
        return len(self.tokens) - self.copied_tokens

    @property
    def is_text_alone(self) -> bool:
        """No reasoning, no calls."""
        return all(item.kind == "message" for item in self.items)

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
            if entry.id.attempt == 0:
                self._note_copied()

    def note(self, event: LogEvent) -> None:
        """Take in the next event with a sequence, whatever its entry id will be; raises BadEntry."""
        self.last_t = max(self.last_t, event.t)
        self.next_number += 1
        match event:
            case Text() | Reasoning() | Arguments():
                self._add_piece(event)
            case ItemAdded():
                self._add_item(event)
            case PartAdded() | PartDone() | TextDone() | ReasoningDone() | ArgumentsDone() | ItemDone():
                self._add_structure(event)
            case Embedding(t=t, vector=vector):
                self.vectors.append(vector)
                self.embedded_tokens += event.input_tokens
                self._note_output(t)
            case Accepted():
                self.accepted = event
            case Queued():
                pass
            case _:
                self.status = advance(self.status, _STATUS_OF[type(event)])
                if isinstance(event, TERMINAL):
                    self.terminal = event

    def _note_copied(self) -> None:
        self.copied = max(0, self.next_number - 1 - BEFORE_OUTPUT)
        self.copied_pieces, self.copied_tokens = self.pieces, len(self.tokens)
        self.first_text_ms = None

    def _add_fence(self, event: Fence) -> None:
        if event.released:
            self.empty_attempts = max(0, self.empty_attempts - 1)
        else:
            self.attempts += 1
            self.empty_attempts += 1
        self.fence = event

    def _note_output(self, t: int) -> None:
        self.empty_attempts = 0
        self.pieces += 1
        if self.first_text_ms is None:
            self.first_text_ms = t

    def _add_piece(self, event: Text | Reasoning | Arguments) -> None:
        item = self._item()
        item.pieces.append(event.delta)
        if event.tokens:
            self.tokens.extend(event.tokens)
        elif event.delta:
            self.untracked_text = True
        if isinstance(event, Text) and event.logprobs:
            item.logprobs.extend(event.logprobs)
        self._note_output(event.t)

    def _add_item(self, event: ItemAdded) -> None:
        self.open_item = Item(event)
        self.items.append(self.open_item)
        if event.item == "function_call":
            self.calls += 1
            self.tokens.extend(event.tokens)
            self._note_output(event.t)  # its name is shown

    def _add_structure(self, event: PartAdded | PartDone | TextDone | ReasoningDone | ArgumentsDone | ItemDone) -> None:
        item = self._item()
        match event:
            case PartAdded():
                item.part_open = item.content_open = True
            case PartDone():
                item.part_open = False
            case ItemDone(status=status):
                item.is_open = False
                item.status = status
                self.open_item = None
            case _:
                item.content_open = False

    def _item(self) -> Item:
        """The one that is open; output outside an item, which no worker of ours writes, makes a message."""
        if self.open_item is None:
            self.open_item = Item(ItemAdded(t=self.last_t, output_index=len(self.items)))
            self.items.append(self.open_item)
        return self.open_item


def transcript_of(entries: Iterable[Entry]) -> Transcript:
    """Fold a whole log; raises BadEntry."""
    transcript = Transcript()
    for entry in entries:
        transcript.add(entry)
    return transcript
