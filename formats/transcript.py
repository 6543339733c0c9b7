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
    ChoiceEnd,
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
    Piece,
    Queued,
    Reasoning,
    ReasoningDone,
    Structure,
    Terminal,
    Text,
    TextDone,
    Usage,
)
from schemas.logprobs import TokenLogprob
from schemas.requests import MAX_CHOICES


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
        "choice",
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
        self.choice = added.choice
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

    def add_piece(self, event: Piece) -> None:
        """More of its content."""
        self.pieces.append(event.delta)
        if isinstance(event, Text) and event.logprobs:
            self.logprobs.extend(event.logprobs)

    def add_structure(self, event: Structure) -> None:
        """What opens and closes it."""
        match event:
            case PartAdded():
                self.part_open = self.content_open = True
            case PartDone():
                self.part_open = False
            case ItemDone(status=status):
                self.is_open = False
                self.status = status
            case _:
                self.content_open = False


class Choice:
    """One answer of a response as far as it is there; most responses have one."""

    __slots__ = (
        "calls",
        "copied_pieces",
        "copied_tokens",
        "end",
        "index",
        "items",
        "open_item",
        "pieces",
        "tokens",
        "untracked_text",
    )

    def __init__(self, index: int) -> None:
        self.index = index
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
        self.copied_pieces = 0
        self.copied_tokens = 0
        """Of `pieces` and `tokens`, what a fork has from another response."""
        self.end: ChoiceEnd | None = None
        """How it ended, where it is one of several."""

    @property
    def text(self) -> str:
        """Of all its messages: without reasoning and calls."""
        return "".join(piece for item in self.items if item.kind == "message" for piece in item.pieces)

    @property
    def is_text_alone(self) -> bool:
        """No reasoning, no calls."""
        return all(item.kind == "message" for item in self.items)

    @property
    def has_own_output(self) -> bool:
        """More than what was copied."""
        return self.pieces > self.copied_pieces

    @property
    def length(self) -> int:
        """In tokens; where some of the output has no ids, in pieces."""
        return self.pieces if self.untracked_text else len(self.tokens)

    @property
    def copied_length(self) -> int:
        """Of `length`."""
        return self.copied_pieces if self.untracked_text else self.copied_tokens


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
        """Of all choices, by their output index."""
        self.choices = [Choice(0)]
        """Those that have an item or were asked for, and all before them."""
        self.dropped: int | None = None
        """So many messages were left out of the input that the output was generated from; None: there is none yet."""
        self.copied = 0
        """So many of its events a fork has from another log: they stand behind `queued` in attempt 0."""
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
        return "".join([choice.text for choice in self.choices])

    @property
    def tokens(self) -> list[int]:
        """Ids that everything so far stands for, choice by choice."""
        return [token for choice in self.choices for token in choice.tokens]

    @property
    def calls(self) -> int:
        """Function calls so far."""
        return sum(choice.calls for choice in self.choices)

    @property
    def pieces(self) -> int:
        """Pieces of output so far."""
        return len(self.vectors) + sum(choice.pieces for choice in self.choices)

    @property
    def untracked_text(self) -> bool:
        """Some output has no token ids, so an engine can not continue it from ids."""
        return any(choice.untracked_text for choice in self.choices)

    @property
    def open_items(self) -> list[Item]:
        """At most one of each choice, by their output index."""
        return [item for item in self.items if item.is_open]

    @property
    def has_output(self) -> bool:
        return self.pieces > 0

    @property
    def usage(self) -> Usage:
        """What is known before the end: the tokens that are there, and what choices that have ended say."""
        ends = [choice.end for choice in self.choices if choice.end is not None]
        rest = sum(len(choice.tokens) - choice.copied_tokens for choice in self.choices if choice.end is None)
        return joined_usage(ends, self._per_prompt, output_tokens=rest)

    @property
    def _per_prompt(self) -> int:
        return self.accepted.request.n if self.accepted is not None else 1

    def choice(self, index: int) -> Choice:
        """As far as it is there. Raises BadEntry for one that no response can have."""
        if index >= MAX_CHOICES:
            raise BadEntry(f"a response has no choice {index}")
        while len(self.choices) <= index:
            self.choices.append(Choice(len(self.choices)))
        return self.choices[index]

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
        if event.t > self.last_t:
            self.last_t = event.t
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
        """The last event was there when the response was accepted. What is copied has one choice."""
        self.copied = max(0, self.next_number - 1 - BEFORE_OUTPUT)
        choice = self.choices[0]
        choice.copied_pieces, choice.copied_tokens = choice.pieces, len(choice.tokens)
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
        if self.first_text_ms is None:
            self.first_text_ms = t

    def _add_piece(self, event: Piece) -> None:
        try:
            choice = self.choices[event.choice]
        except IndexError:
            choice = self.choice(event.choice)
        item = choice.open_item or self._loose_item(choice)
        item.add_piece(event)
        choice.pieces += 1
        if event.tokens:
            choice.tokens.extend(event.tokens)
        elif event.delta:
            choice.untracked_text = True
        self._note_output(event.t)

    def _add_item(self, event: ItemAdded) -> None:
        if self.dropped is None:
            self.dropped = event.dropped
        choice = self.choice(event.choice)
        choice.open_item = Item(event)
        self.items.append(choice.open_item)
        choice.items.append(choice.open_item)
        if event.item == "function_call":
            choice.calls += 1
            choice.pieces += 1
            choice.tokens.extend(event.tokens)
            self._note_output(event.t)  # its name is shown

    def _add_structure(self, event: Structure) -> None:
        is_there = event.output_index < len(self.items)
        first = self.choices[0]
        item = self.items[event.output_index] if is_there else first.open_item or self._loose_item(first)
        item.add_structure(event)
        if isinstance(event, ItemDone):
            choice = self.choices[item.choice]
            choice.open_item = None
            choice.end = event.end

    def _loose_item(self, choice: Choice) -> Item:
        """Output outside an item, which no worker of ours writes, makes a message."""
        self._add_item(ItemAdded(t=self.last_t, output_index=len(self.items), choice=choice.index))
        assert choice.open_item is not None
        return choice.open_item


def joined_usage(ends: Iterable[ChoiceEnd], per_prompt: int, *, output_tokens: int = 0) -> Usage:
    """Of choices together, each prompt counted once; `output_tokens`: beside theirs."""
    prompts: dict[int, Usage] = {}
    reasoning_tokens = 0
    for end in ends:
        prompts.setdefault(end.choice // per_prompt, end.usage)
        output_tokens += end.usage.output_tokens
        reasoning_tokens += end.usage.reasoning_tokens
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in prompts.values()),
        output_tokens=output_tokens,
        cached_tokens=sum(usage.cached_tokens for usage in prompts.values()),
        reasoning_tokens=reasoning_tokens,
    )


def transcript_of(entries: Iterable[Entry]) -> Transcript:
    """Fold a whole log; raises BadEntry."""
    transcript = Transcript()
    for entry in entries:
        transcript.add(entry)
    return transcript
