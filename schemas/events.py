"""The events of a response log: a tagged union, one entry each.

An entry has one field, `event`: one of these as a JSON object. The log keeps one
entry for each event that the Responses API streams, without repeating text, plus
fences, which have no sequence and which no client sees. `t` is milliseconds since
the request was accepted and never below the entry before it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from schemas.decoding import UNDECODABLE
from schemas.errors import BadEntry
from schemas.ids import ResponseId
from schemas.logprobs import TokenLogprob
from schemas.requests import Format, GenerationRequest, Lane

ItemKind = Literal["message", "reasoning", "function_call"]
EndReason = Literal["stop", "length", "content_filter"]
"""Why one choice ended; that it called tools is seen from its items."""
VERSION = 1
"""Version of the event shapes, carried by the first event of a log."""


class Usage(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Tokens of the whole response, over all attempts."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    """Of the output tokens."""

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


class ChoiceEnd(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """How one of several choices ended. A response with one choice says it in its terminal event alone."""

    usage: Usage
    """Of this choice over all attempts, the tokens of its prompt included."""
    choice: int = 0
    reason: EndReason = "stop"
    calls: int = 0
    """Functions that it called."""
    left: int = 0
    """Choices that have not ended yet."""


class ErrorDetail(msgspec.Struct, frozen=True, gc=False):
    """Why a response failed; `code` is stable."""

    code: str
    message: str


class Event(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", kw_only=True):
    """What all events have."""

    t: int


class Accepted(Event, tag="accepted", frozen=True, kw_only=True):
    """Sequence 0: what was asked, by whom, when (unix ms)."""

    v: int = VERSION
    id: ResponseId
    tenant: str
    format: Format
    at_ms: int
    request: GenerationRequest
    retry_of: ResponseId | None = None
    """The response whose request was sent again."""
    fork_of: ResponseId | None = None
    """The response whose first events stand behind `queued`, in attempt 0: it goes on from them."""
    fork_after: int = 0
    """Sequence of the last of them."""
    key: str = ""
    """Id of the managed API key that asked, 32 hex digits; empty: another kind of key, or none."""
    lane: Lane = "interactive"
    request_id: str = ""
    """The `x-request-id` of the HTTP request; empty: it came another way, or to an older version."""


class Queued(Event, tag="queued", frozen=True, kw_only=True):
    """Sequence 1: it waits in a lane."""

    lane: Lane


class Fence(Event, tag="fence", frozen=True, kw_only=True):
    """`<attempt>-0`: from here on only this boot writes. `released`: handed back, nobody owns it."""

    consumer: str
    boot: str
    released: bool = False


class InProgress(Event, tag="in_progress", frozen=True, kw_only=True):
    """A worker has begun."""

    engine: str = ""
    """Which engine it is."""


class ItemAdded(Event, tag="item_added", frozen=True, kw_only=True, gc=False):
    """An output item opens: a message, reasoning, or the call of a function."""

    output_index: int = 0
    item: ItemKind = "message"
    name: str = ""
    """Of the function that is called."""
    call: int = 0
    """Which call of its choice it is, from 0."""
    tokens: tuple[int, ...] = ()
    """What stood for the name."""
    dropped: int = 0
    """With the first item: so many messages were left out of the input that the output was generated from."""
    choice: int = 0


class PartAdded(Event, tag="part_added", frozen=True, kw_only=True, gc=False):
    """A content part of the item opens."""

    output_index: int = 0
    content_index: int = 0


class Text(Event, tag="text", frozen=True, kw_only=True, gc=False):
    """A piece of output text and the token ids it stands for, where the engine knows them."""

    delta: str
    tokens: tuple[int, ...] = ()
    output_index: int = 0
    content_index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    choice: int = 0
    offset: int = 0
    """Characters of its choice before it: with log probabilities after a bare prompt, whose format shows it."""


class TextDone(Event, tag="text_done", frozen=True, kw_only=True, gc=False):
    """The text of the part is complete."""

    output_index: int = 0
    content_index: int = 0


class Reasoning(Event, tag="reasoning", frozen=True, kw_only=True, gc=False):
    """A piece of the model's reasoning."""

    delta: str
    tokens: tuple[int, ...] = ()
    output_index: int = 0
    content_index: int = 0
    choice: int = 0


class ReasoningDone(Event, tag="reasoning_done", frozen=True, kw_only=True, gc=False):
    """The reasoning of the part is complete."""

    output_index: int = 0
    content_index: int = 0


class PartDone(Event, tag="part_done", frozen=True, kw_only=True, gc=False):
    """The part is closed."""

    output_index: int = 0
    content_index: int = 0


class Arguments(Event, tag="arguments", frozen=True, kw_only=True, gc=False):
    """A piece of the arguments of a call, JSON text as the model writes it."""

    delta: str
    tokens: tuple[int, ...] = ()
    output_index: int = 0
    call: int = 0
    choice: int = 0


class ArgumentsDone(Event, tag="arguments_done", frozen=True, kw_only=True, gc=False):
    """The arguments are complete."""

    output_index: int = 0


class ItemDone(Event, tag="item_done", frozen=True, kw_only=True, gc=False):
    """The item is closed."""

    output_index: int = 0
    status: Literal["completed", "incomplete"] = "completed"
    end: ChoiceEnd | None = None
    """With the last item of a choice, where there are several."""


class Embedding(Event, tag="embedding", frozen=True, kw_only=True, gc=False):
    """The vector of one input."""

    index: int
    vector: str
    """Its numbers as float32, little-endian, in base64."""
    input_tokens: int = 0
    """Of this input and of those since the last event that has a number here: engines count batches."""


class Completed(Event, tag="completed", frozen=True, kw_only=True):
    """Terminal: the model came to its end."""

    usage: Usage


class Incomplete(Event, tag="incomplete", frozen=True, kw_only=True):
    """Terminal: stopped by a limit."""

    usage: Usage
    reason: Literal["max_output_tokens", "content_filter"] = "max_output_tokens"


class Failed(Event, tag="failed", frozen=True, kw_only=True):
    """Terminal: it can not be finished."""

    error: ErrorDetail
    usage: Usage = Usage()


class Cancelled(Event, tag="cancelled", frozen=True, kw_only=True):
    """Terminal: somebody asked for the end."""

    usage: Usage = Usage()


Terminal = Completed | Incomplete | Failed | Cancelled
TERMINAL = (Completed, Incomplete, Failed, Cancelled)
Piece = Text | Reasoning | Arguments
"""Output, within an item."""
PIECE = (Text, Reasoning, Arguments)
Structure = PartAdded | PartDone | TextDone | ReasoningDone | ArgumentsDone | ItemDone
"""Of an item that is there: all but the event that opens it."""
STRUCTURE = (PartAdded, PartDone, TextDone, ReasoningDone, ArgumentsDone, ItemDone)
LogEvent = (
    Accepted
    | Queued
    | Fence
    | InProgress
    | ItemAdded
    | PartAdded
    | Text
    | TextDone
    | Reasoning
    | ReasoningDone
    | PartDone
    | Arguments
    | ArgumentsDone
    | ItemDone
    | Embedding
    | Completed
    | Incomplete
    | Failed
    | Cancelled
)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[LogEvent] = msgspec.json.Decoder(LogEvent)
_list_decoder: msgspec.json.Decoder[list[LogEvent]] = msgspec.json.Decoder(list[LogEvent])


def encode_event(event: LogEvent) -> bytes:
    """The JSON of an event, tag first."""
    return _encoder.encode(event)


def decode_event(raw: bytes) -> LogEvent:
    """The event of a JSON object; raises BadEntry."""
    try:
        return _decoder.decode(raw)
    except UNDECODABLE as exc:
        raise BadEntry(f"log event does not parse: {exc}") from exc


def decode_events(raw: list[bytes]) -> list[LogEvent]:
    """As `decode_event` of each, in a quarter of the time; raises BadEntry."""
    try:
        events = _list_decoder.decode(b"[" + b",".join(raw) + b"]")
    except UNDECODABLE:
        events = []
    # one by one where they do not fit, so that the error is the right one
    return events if len(events) == len(raw) else [decode_event(one) for one in raw]


class EntryId(msgspec.Struct, frozen=True, order=True, gc=False):
    """Id of a log entry: `<attempt>-<sequence+1>`; `<attempt>-0` is a fence."""

    attempt: int
    number: int
    """Sequence + 1; 0 for a fence."""

    @property
    def sequence(self) -> int:
        return self.number - 1

    @property
    def is_fence(self) -> bool:
        return self.number == 0

    def __str__(self) -> str:
        return f"{self.attempt}-{self.number}"


def parse_entry_id(text: str) -> EntryId | None:
    """`<attempt>-<number>` in plain decimal digits, each below 2**63; None for anything else."""
    attempt, dash, number = text.partition("-")
    if not dash or len(text) > 39:
        return None
    for part in (attempt, number):
        if not (part.isascii() and part.isdigit()) or (len(part) > 1 and part[0] == "0"):
            return None
    parsed = EntryId(int(attempt), int(number))
    return parsed if max(parsed.attempt, parsed.number) < 1 << 63 else None


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An event as it stands in a log."""

    id: EntryId
    event: LogEvent
