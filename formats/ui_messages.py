"""The UI message stream of the Vercel AI SDK, version 1: what `useChat` reads.

Chunks and their fields: `ui-message-stream/ui-message-chunks.ts` of the npm package `ai` (6.0.326 and 7.0.173 read).
A response is one step of one message; of several choices it is the first. The client pairs starts with ends and
takes a delta only in between, so each comes from an event that the log pairs as well.
"""

from __future__ import annotations

from typing import Any

import msgspec

from formats.chat import choice_finish_reason
from formats.choices import end_of_choice
from formats.items import OUTPUT_PREFIX
from formats.sse import Tail, accepted_of, frame, is_first_choice
from schemas.decoding import UNDECODABLE
from schemas.events import (
    TERMINAL,
    Accepted,
    Arguments,
    Cancelled,
    Entry,
    Failed,
    InProgress,
    ItemAdded,
    ItemDone,
    PartAdded,
    Reasoning,
    ReasoningDone,
    Terminal,
    Text,
    TextDone,
)
from schemas.ids import call_id, item_id

Chunk = dict[str, Any]

_encode = msgspec.json.Encoder().encode
_FINISH_REASONS = {"stop": "stop", "length": "length", "content_filter": "content-filter", "tool_calls": "tool-calls"}


class _Delta(msgspec.Struct, gc=False):
    """Struct instead of dict: one is encoded for every token."""

    type: str
    id: str
    delta: str


def encode_ui_messages(tail: Tail, index: int) -> bytes:
    """The chunks of one entry, as SSE, for a client that has the messages that it sent."""
    entry = tail[index]
    match entry.event:
        case Text() | Reasoning() | Arguments() if not is_first_choice(entry.event):
            return b""
        case Text(output_index=place, delta=text):
            return _framed([_Delta("text-delta", _item_id(tail, place, "message"), text)], entry)
        case Reasoning(output_index=place, delta=text):
            return _framed([_Delta("reasoning-delta", _item_id(tail, place, "reasoning"), text)], entry)
        case _:
            return _framed(_chunks(tail, entry), entry)


def encode_whole_ui_messages(tail: Tail, index: int) -> bytes:
    """For a client that comes back, and builds the message anew: with what was in it before this response."""
    if index:
        return encode_ui_messages(tail, index)
    continued = accepted_of(tail).request.continued
    earlier = continued.chunks if continued is not None else []
    return _framed([*_chunks(tail, tail[0]), *earlier], tail[0])


def message_id(accepted: Accepted) -> str:
    """The id of the message as the client knows it: the response's, or of the message that it is added to."""
    continued = accepted.request.continued
    return (continued.id if continued is not None else "") or accepted.id


def _framed(chunks: list[Any], entry: Entry) -> bytes:
    """The entry's id stands on the last chunk."""
    last = len(chunks) - 1
    return b"".join(
        [frame(_encode(chunk), entry_id=str(entry.id) if i == last else "") for i, chunk in enumerate(chunks)]
    )


def _chunks(tail: Tail, entry: Entry) -> list[Chunk]:
    """Of an entry that is no piece of text."""
    match entry.event:
        case Accepted():
            return [{"type": "start", "messageId": message_id(entry.event)}]
        case InProgress():
            return [{"type": "start-step"}]
        case PartAdded() | TextDone() | ReasoningDone() | ItemDone():
            added = _added(tail, entry, entry.event.output_index)
            return _structure(tail, entry, added) if is_first_choice(added) else []
        case ItemAdded(item="function_call", output_index=place, name=name) if is_first_choice(entry.event):
            return [{"type": "tool-input-start", "toolCallId": _call_id(tail, place), "toolName": name}]
        case Arguments(output_index=place, delta=text):
            return [{"type": "tool-input-delta", "toolCallId": _call_id(tail, place), "inputTextDelta": text}]
        case event if isinstance(event, TERMINAL):
            return _last_chunks(tail, event)
        case _:
            return []


def _structure(tail: Tail, entry: Entry, added: ItemAdded) -> list[Chunk]:
    """Of what is inside an item, and of its end. A call that was cut off has none: clients would run or answer it."""
    name = _item_id(tail, added.output_index, added.item)
    match entry.event:
        case PartAdded():
            return [{"type": "reasoning-start" if added.item == "reasoning" else "text-start", "id": name}]
        case TextDone():
            return [{"type": "text-end", "id": name}]
        case ReasoningDone():
            return [{"type": "reasoning-end", "id": name}]
        case ItemDone(status="completed") if added.item == "function_call":
            return [_call(tail, entry, added)]
        case _:
            return []


def _item_id(tail: Tail, output_index: int, kind: str) -> str:
    return item_id(accepted_of(tail).id, output_index, OUTPUT_PREFIX[kind])


def _call_id(tail: Tail, output_index: int) -> str:
    return call_id(accepted_of(tail).id, output_index)


def _added(tail: Tail, entry: Entry, output_index: int) -> ItemAdded:
    """The event that opened an item: before `entry`, usually just before."""
    for index in range(entry.id.sequence, -1, -1):
        event = tail[index].event
        if isinstance(event, ItemAdded) and event.output_index == output_index:
            return event
    return ItemAdded(t=entry.event.t, output_index=output_index)


def _call(tail: Tail, entry: Entry, added: ItemAdded) -> Chunk:
    """A whole call."""
    text = "".join(
        earlier.event.delta
        for earlier in tail[: entry.id.sequence]
        if isinstance(earlier.event, Arguments) and earlier.event.output_index == added.output_index
    )
    head = {"toolCallId": _call_id(tail, added.output_index), "toolName": added.name}
    try:
        given = msgspec.json.decode(text) if text.strip() else {}  # the SDK's own servers take nothing for {} too
    except UNDECODABLE as exc:
        error = f"The arguments are not valid JSON: {exc}"
        return {"type": "tool-input-error", **head, "input": text, "errorText": error}
    return {"type": "tool-input-available", **head, "input": given}


def _last_chunks(tail: Tail, event: Terminal) -> list[Chunk]:
    """A client stops at `error`; what comes behind it is for those who read on."""
    if isinstance(event, Cancelled):
        return [{"type": "abort", "reason": "The response was cancelled."}]
    has_begun = any(isinstance(earlier.event, InProgress) for earlier in tail)
    chunks: list[Chunk] = [{"type": "finish-step"}] if has_begun else []
    if isinstance(event, Failed):
        return [{"type": "error", "errorText": event.error.message}, *chunks, _finish("error")]
    reason = choice_finish_reason(end_of_choice(tail, len(tail), event, choice=0))
    return [*chunks, _finish(_FINISH_REASONS[reason])]


def _finish(reason: str) -> Chunk:
    return {"type": "finish", "finishReason": reason}
