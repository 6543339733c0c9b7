"""The chat completions format: chunks of text, a finish reason, usage where it was asked for."""

from __future__ import annotations

from typing import Any

import msgspec

from formats.logprobs import logprob_objects
from formats.sse import Tail, frame
from formats.transcript import Transcript
from schemas.errors import type_of_code
from schemas.events import (
    TERMINAL,
    Accepted,
    Arguments,
    Cancelled,
    Entry,
    Failed,
    Incomplete,
    ItemAdded,
    Reasoning,
    Terminal,
    Text,
    Usage,
)
from schemas.ids import call_id, chat_id

_encode = msgspec.json.Encoder().encode


class _Delta(msgspec.Struct, omit_defaults=True, gc=False):
    role: str | msgspec.UnsetType = msgspec.UNSET
    content: str | msgspec.UnsetType = msgspec.UNSET
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET
    """Not OpenAI's: the name by which DeepSeek's API and vLLM's clients know it."""
    tool_calls: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta
    finish_reason: str | None = None
    index: int = 0
    logprobs: dict[str, Any] | None = None


class _Chunk(msgspec.Struct, gc=False):
    """Structs instead of dicts: one is encoded for every token."""

    id: str
    object: str
    created: int
    model: str
    choices: tuple[_Choice, ...]
    usage: dict[str, Any] | msgspec.UnsetType | None


def encode_chat(tail: Tail, index: int) -> bytes:
    """The chunks of one entry, as SSE; most structure events have none."""
    entry = tail[index]
    match entry.event:
        case Text(delta=text, logprobs=logprobs):
            found = {"content": logprob_objects(logprobs), "refusal": None} if logprobs else None
            return _chunk(tail, entry, _Choice(_Delta(content=text), logprobs=found))
        case Reasoning(delta=text):
            return _chunk(tail, entry, _Choice(_Delta(reasoning_content=text)))
        case Arguments(delta=text, call=call):
            piece = {"index": call, "function": {"arguments": text}}
            return _chunk(tail, entry, _Choice(_Delta(tool_calls=[piece])))
        case ItemAdded():
            return _item_added(tail, entry, entry.event)
        case event if isinstance(event, TERMINAL):
            return _last_chunks(tail, entry, event)
        case _:
            return b""


def _item_added(tail: Tail, entry: Entry, event: ItemAdded) -> bytes:
    """The role with the first item; a call with its id and name."""
    delta = _Delta()
    if event.output_index == 0:
        delta.role = "assistant"
        delta.content = ""
    if event.item == "function_call":
        head = {"index": event.call, "id": call_id(_accepted(tail).id, event.output_index), "type": "function"}
        delta.tool_calls = [head | {"function": {"name": event.name, "arguments": ""}}]
    elif event.output_index:
        return b""
    return _chunk(tail, entry, _Choice(delta))


def _accepted(tail: Tail) -> Accepted:
    first = tail[0].event
    assert isinstance(first, Accepted)  # the first event of every log
    return first


def _chunk(tail: Tail, entry: Entry, choice: _Choice, *, is_last: bool = True) -> bytes:
    accepted = _accepted(tail)
    usage = None if accepted.request.include_usage else msgspec.UNSET
    return frame(_body(accepted, (choice,), usage), entry_id=str(entry.id) if is_last else "")


def _body(accepted: Accepted, choices: tuple[_Choice, ...], usage: dict[str, Any] | msgspec.UnsetType | None) -> bytes:
    return _encode(
        _Chunk(
            chat_id(accepted.id),
            "chat.completion.chunk",
            accepted.at_ms // 1000,
            accepted.request.shown_model,
            choices,
            usage,
        )
    )


def _last_chunks(tail: Tail, entry: Entry, event: Terminal) -> bytes:
    if isinstance(event, Failed | Cancelled):
        return frame(_encode({"error": error_object(event)}), entry_id=str(entry.id))
    accepted = _accepted(tail)
    with_usage = accepted.request.include_usage
    has_calls = any(isinstance(e.event, ItemAdded) and e.event.item == "function_call" for e in tail)
    finish = _chunk(tail, entry, _Choice(_Delta(), finish_reason(event, has_calls=has_calls)), is_last=not with_usage)
    if not with_usage:
        return finish
    return finish + frame(_body(accepted, (), usage_object(event.usage)), entry_id=str(entry.id))


def error_object(event: Failed | Cancelled) -> dict[str, Any]:
    """The error of a response that ended with none of its own."""
    if isinstance(event, Cancelled):
        return {"message": "The response was cancelled.", "type": "server_error", "param": None, "code": "cancelled"}
    code = event.error.code
    return {"message": event.error.message, "type": type_of_code(code), "param": None, "code": code}


def finish_reason(event: Terminal, *, has_calls: bool = False) -> str:
    """In the words of chat completions."""
    if isinstance(event, Incomplete):
        return "length" if event.reason == "max_output_tokens" else "content_filter"
    return "tool_calls" if has_calls else "stop"


def usage_object(usage: Usage) -> dict[str, Any]:
    """In the words of chat completions."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def chat_completion(transcript: Transcript) -> dict[str, Any]:
    """The chat.completion object of a response that was finished and did not fail."""
    accepted, terminal = transcript.accepted, transcript.terminal
    assert accepted is not None
    assert terminal is not None
    reason = finish_reason(terminal, has_calls=transcript.calls > 0)
    choice = {"index": 0, "message": _message(transcript), "logprobs": _logprobs(transcript), "finish_reason": reason}
    return {
        "id": chat_id(accepted.id),
        "object": "chat.completion",
        "created": accepted.at_ms // 1000,
        "model": accepted.request.shown_model,
        "choices": [choice],
        "usage": usage_object(terminal.usage),
        "service_tier": "default",
    }


def _message(transcript: Transcript) -> dict[str, Any]:
    assert transcript.accepted is not None
    calls = [
        {
            "id": call_id(transcript.accepted.id, item.index),
            "type": "function",
            "function": {"name": item.name, "arguments": item.content},
        }
        for item in transcript.items
        if item.kind == "function_call"
    ]
    text = transcript.text
    message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None}
    message |= {"refusal": None, "annotations": []}
    if calls:
        message["tool_calls"] = calls
    reasoning = "".join(item.content for item in transcript.items if item.kind == "reasoning")
    return message | ({"reasoning_content": reasoning} if reasoning else {})


def _logprobs(transcript: Transcript) -> dict[str, Any] | None:
    assert transcript.accepted is not None
    if not transcript.accepted.request.logprobs:
        return None
    tokens = [token for item in transcript.items for token in item.logprobs]
    return {"content": logprob_objects(tokens), "refusal": None}
