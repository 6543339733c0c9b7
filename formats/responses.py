"""The Responses format: one stream event for each log entry, `sequence_number` = sequence."""

from __future__ import annotations

from typing import Any

import msgspec

from formats.sse import Tail, frame
from formats.transcript import Status, Transcript, transcript_of
from schemas.events import (
    Accepted,
    Cancelled,
    Completed,
    Entry,
    Failed,
    Incomplete,
    InProgress,
    ItemAdded,
    ItemDone,
    LogEvent,
    PartAdded,
    PartDone,
    Queued,
    Text,
    TextDone,
    Usage,
)
from schemas.ids import item_id

_encode = msgspec.json.Encoder().encode

_TYPES: dict[type[LogEvent], str] = {
    Accepted: "response.created",
    Queued: "response.queued",
    InProgress: "response.in_progress",
    ItemAdded: "response.output_item.added",
    PartAdded: "response.content_part.added",
    Text: "response.output_text.delta",
    TextDone: "response.output_text.done",
    PartDone: "response.content_part.done",
    ItemDone: "response.output_item.done",
    Completed: "response.completed",
    Incomplete: "response.incomplete",
    Failed: "response.failed",
    # the format has no event for a cancelled response; its status says it
    Cancelled: "response.incomplete",
}


class _TextDelta(msgspec.Struct, gc=False):
    """Struct instead of dict: this one is encoded for every token."""

    type: str
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    delta: str
    logprobs: tuple[()] = ()


def encode_responses(tail: Tail, index: int) -> bytes:
    """The SSE event of one entry."""
    entry = tail[index]
    name = _TYPES[type(entry.event)]
    body = _text_delta(tail, entry) if isinstance(entry.event, Text) else _encode(_wire_event(tail, entry, name))
    return frame(body, event=name, entry_id=str(entry.id))


def _accepted(tail: Tail) -> Accepted:
    first = tail[0].event
    assert isinstance(first, Accepted)  # the first event of every log
    return first


def _text_delta(tail: Tail, entry: Entry) -> bytes:
    event = entry.event
    assert isinstance(event, Text)
    return _encode(
        _TextDelta(
            "response.output_text.delta",
            entry.id.sequence,
            item_id(_accepted(tail).id, event.output_index),
            event.output_index,
            event.content_index,
            event.delta,
        )
    )


def _wire_event(tail: Tail, entry: Entry, name: str) -> dict[str, Any]:
    so_far = transcript_of(tail[: entry.id.number])
    head: dict[str, Any] = {"type": name, "sequence_number": entry.id.sequence}
    match entry.event:
        case ItemAdded(output_index=index) | ItemDone(output_index=index):
            return head | {"output_index": index, "item": _item(so_far, index, entry.event)}
        case PartAdded(output_index=index, content_index=part) | PartDone(output_index=index, content_index=part):
            text = so_far.text if isinstance(entry.event, PartDone) else ""
            return head | _position(tail, index, part) | {"part": _part(text)}
        case TextDone(output_index=index, content_index=part):
            return head | _position(tail, index, part) | {"text": so_far.text, "logprobs": []}
        case _:
            return head | {"response": response_object(so_far)}


def _position(tail: Tail, output_index: int, content_index: int) -> dict[str, Any]:
    return {
        "item_id": item_id(_accepted(tail).id, output_index),
        "output_index": output_index,
        "content_index": content_index,
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _item(transcript: Transcript, output_index: int, event: ItemAdded | ItemDone) -> dict[str, Any]:
    assert transcript.accepted is not None
    is_done = isinstance(event, ItemDone)
    return {
        "id": item_id(transcript.accepted.id, output_index),
        "type": "message",
        "role": "assistant",
        "status": event.status if isinstance(event, ItemDone) else "in_progress",
        "content": [_part(transcript.text)] if is_done else [],
    }


def _output(transcript: Transcript) -> list[dict[str, Any]]:
    if transcript.terminal is None or not transcript.has_item:
        return []
    status = "completed" if transcript.status is Status.COMPLETED else "incomplete"
    done = ItemDone(t=0, status="completed" if status == "completed" else "incomplete")
    return [_item(transcript, 0, done)]


def response_object(transcript: Transcript) -> dict[str, Any]:
    """The Response object as the log stands; every key of the format is there.

    Keys follow the Open Responses specification 2026-04-24, which wants nullable ones present.
    """
    accepted, terminal = transcript.accepted, transcript.terminal
    assert accepted is not None
    request = accepted.request
    created_at = accepted.at_ms // 1000
    return {
        "id": accepted.id,
        "object": "response",
        "created_at": created_at,
        "completed_at": created_at + terminal.t // 1000 if terminal else None,
        "status": str(transcript.status),
        "incomplete_details": {"reason": terminal.reason} if isinstance(terminal, Incomplete) else None,
        "model": request.model,
        "previous_response_id": None,
        "instructions": request.instructions,
        "output": _output(transcript),
        "error": _error(terminal) if isinstance(terminal, Failed) else None,
        "tools": [],
        "tool_choice": "auto",
        "truncation": "disabled",
        "parallel_tool_calls": True,
        "text": {"format": {"type": "text"}},
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "presence_penalty": request.presence_penalty or 0.0,
        "frequency_penalty": request.frequency_penalty or 0.0,
        "top_logprobs": 0,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "reasoning": None,
        "usage": _usage(terminal.usage) if terminal else None,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": None,
        "store": True,
        "background": request.background,
        "service_tier": "default",
        "metadata": request.metadata,
        "safety_identifier": None,
        "prompt_cache_key": None,
        "user": request.user,
    }


def _error(terminal: Failed) -> dict[str, str]:
    return {"code": terminal.error.code, "message": terminal.error.message}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }
