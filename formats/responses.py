"""The Responses format: one stream event for each log entry, `sequence_number` = sequence."""

from __future__ import annotations

from typing import Any

import msgspec

from formats.items import OUTPUT_PREFIX, output_item, output_items, output_part
from formats.logprobs import logprob_objects
from formats.sse import Tail, accepted_of, frame
from formats.transcript import Item, Transcript, transcript_of
from schemas.events import (
    PIECE,
    STRUCTURE,
    Accepted,
    Arguments,
    ArgumentsDone,
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
    Reasoning,
    ReasoningDone,
    Text,
    TextDone,
    Usage,
)
from schemas.ids import item_id
from schemas.requests import GenerationRequest
from schemas.tools import ToolName

_encode = msgspec.json.Encoder().encode

_TYPES: dict[type[LogEvent], str] = {
    Accepted: "response.created",
    Queued: "response.queued",
    InProgress: "response.in_progress",
    ItemAdded: "response.output_item.added",
    PartAdded: "response.content_part.added",
    Text: "response.output_text.delta",
    TextDone: "response.output_text.done",
    Reasoning: "response.reasoning_text.delta",
    ReasoningDone: "response.reasoning_text.done",
    Arguments: "response.function_call_arguments.delta",
    ArgumentsDone: "response.function_call_arguments.done",
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
    logprobs: list[dict[str, Any]]


def encode_responses(tail: Tail, index: int) -> bytes:
    """The SSE event of one entry."""
    entry = tail[index]
    name = _TYPES[type(entry.event)]
    body = _text_delta(tail, entry) if isinstance(entry.event, Text) else _encode(_wire_event(tail, entry, name))
    return frame(body, event=name, entry_id=str(entry.id))


def _text_delta(tail: Tail, entry: Entry) -> bytes:
    event = entry.event
    assert isinstance(event, Text)
    return _encode(
        _TextDelta(
            "response.output_text.delta",
            entry.id.sequence,
            item_id(accepted_of(tail).id, event.output_index),
            event.output_index,
            event.content_index,
            event.delta,
            logprob_objects(event.logprobs),
        )
    )


def _wire_event(tail: Tail, entry: Entry, name: str) -> dict[str, Any]:
    head: dict[str, Any] = {"type": name, "sequence_number": entry.id.sequence}
    match entry.event:
        case Reasoning(output_index=index, content_index=part, delta=delta):
            return head | _position(tail, index, part, "rs") | {"delta": delta}
        case Arguments(output_index=index, delta=delta):
            return head | {"item_id": item_id(accepted_of(tail).id, index, "fc"), "output_index": index, "delta": delta}
        case ItemAdded(output_index=index) as added:
            return head | {"output_index": index, "item": output_item(accepted_of(tail).id, Item(added))}
        case ItemDone(output_index=index):
            item = _item_so_far(tail, entry.id.sequence, index)
            return head | {"output_index": index, "item": output_item(accepted_of(tail).id, item)}
        case PartAdded() | PartDone() | TextDone() | ReasoningDone() | ArgumentsDone():
            item = _item_so_far(tail, entry.id.sequence, entry.event.output_index)
            return head | _structure(tail, item, entry.event)
        case _:
            return head | {"response": response_object(transcript_of(tail[: entry.id.number]))}


def _item_so_far(tail: Tail, last: int, output_index: int) -> Item:
    """From its own entries alone, looked for backwards: where a response has many items, none costs the whole log."""
    own: list[LogEvent] = []
    for place in range(last, -1, -1):
        event = tail[place].event
        if getattr(event, "output_index", -1) == output_index:
            own.append(event)
            if isinstance(event, ItemAdded):
                break
    own.reverse()
    if not isinstance(own[0], ItemAdded):  # output outside an item
        return transcript_of(tail[: last + 1]).items[output_index]
    item = Item(own[0])
    for event in own:
        if isinstance(event, PIECE):
            item.add_piece(event)
        elif isinstance(event, STRUCTURE):
            item.add_structure(event)
    return item


def _structure(
    tail: Tail, item: Item, event: PartAdded | PartDone | TextDone | ReasoningDone | ArgumentsDone
) -> dict[str, Any]:
    if isinstance(event, ArgumentsDone):
        shown = item_id(accepted_of(tail).id, item.index, "fc")
        return {"item_id": shown, "output_index": item.index, "name": item.name, "arguments": item.content}
    position = _position(tail, item.index, event.content_index, OUTPUT_PREFIX[item.kind])
    match event:
        case PartAdded() | PartDone():
            return position | {"part": output_part(item)}
        case TextDone():
            return position | {"text": item.content, "logprobs": logprob_objects(item.logprobs)}
        case ReasoningDone():
            return position | {"text": item.content}


def _position(tail: Tail, output_index: int, content_index: int, prefix: str) -> dict[str, Any]:
    return {
        "item_id": item_id(accepted_of(tail).id, output_index, prefix),
        "output_index": output_index,
        "content_index": content_index,
    }


def _output(transcript: Transcript) -> list[dict[str, Any]]:
    return output_items(transcript) if transcript.terminal is not None else []


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
        "completed_at": created_at + terminal.t // 1000 if isinstance(terminal, Completed) else None,
        "status": str(transcript.status),
        "incomplete_details": {"reason": terminal.reason} if isinstance(terminal, Incomplete) else None,
        "model": request.shown_model,
        "previous_response_id": request.previous_response_id or None,
        "conversation": {"id": request.conversation} if request.conversation else None,
        "instructions": request.instructions,
        "output": _output(transcript),
        "error": _error(terminal) if isinstance(terminal, Failed) else None,
        "tools": _tools(request),
        "tool_choice": _tool_choice(request),
        "truncation": request.truncation,
        "parallel_tool_calls": request.parallel_tool_calls,
        "text": {"format": _text_format(request), "verbosity": request.verbosity or "medium"},
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "presence_penalty": request.presence_penalty or 0.0,
        "frequency_penalty": request.frequency_penalty or 0.0,
        "top_logprobs": request.top_logprobs,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "reasoning": {"effort": request.reasoning_effort, "summary": request.reasoning_summary},
        "usage": _usage(terminal.usage) if terminal else None,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "store": request.store,
        "background": request.background,
        "service_tier": request.service_tier or "default",
        "metadata": request.metadata,
        "safety_identifier": request.safety_identifier,
        "prompt_cache_key": request.prompt_cache_key,
        "prompt_cache_retention": request.prompt_cache_retention,
        "user": request.user,
    } | _fork(accepted)


def _fork(accepted: Accepted) -> dict[str, Any]:
    """Not of the specification: where a fork comes from. Others have no such keys."""
    return {"fork_of": accepted.fork_of, "fork_after": accepted.fork_after} if accepted.fork_of is not None else {}


def _error(terminal: Failed) -> dict[str, str]:
    return {"code": terminal.error.code, "message": terminal.error.message}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def _tools(request: GenerationRequest) -> list[dict[str, Any]]:
    return [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
            "strict": tool.strict,
        }
        for tool in request.tools
    ]


def _tool_choice(request: GenerationRequest) -> str | dict[str, Any]:
    choice = request.tool_choice
    if isinstance(choice, ToolName):
        return {"type": "function", "name": choice.name}
    if not request.allowed_tools:
        return choice
    allowed = [{"type": "function", "name": name} for name in request.allowed_tools]
    return {"type": "allowed_tools", "mode": choice, "tools": allowed}


def _text_format(request: GenerationRequest) -> dict[str, Any]:
    wanted = request.output_format
    if wanted is None:
        return {"type": "text"}
    if wanted.schema is None:
        return {"type": "json_object"}
    head = {"type": "json_schema", "name": wanted.name, "description": wanted.description}
    return head | {"schema": wanted.schema, "strict": bool(wanted.strict)}
