"""The chat completions format: chunks of text, a finish reason, usage where it was asked for."""

from __future__ import annotations

from typing import Any

import msgspec

from formats.chunks import Chunks, usage_object
from formats.logprobs import logprob_objects
from formats.sse import Tail, accepted_of
from formats.transcript import Transcript
from schemas.events import (
    TERMINAL,
    Arguments,
    Cancelled,
    Entry,
    Failed,
    Incomplete,
    ItemAdded,
    Reasoning,
    Terminal,
    Text,
)
from schemas.ids import call_id, chat_id


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


_CHUNKS = Chunks(chat_id, "chat.completion.chunk")


def encode_chat(tail: Tail, index: int) -> bytes:
    """The chunks of one entry, as SSE; most structure events have none."""
    entry = tail[index]
    match entry.event:
        case Text(delta=text, logprobs=logprobs):
            found = {"content": logprob_objects(logprobs), "refusal": None} if logprobs else None
            return _CHUNKS.piece(tail, entry, _Choice(_Delta(content=text), logprobs=found))
        case Reasoning(delta=text):
            return _CHUNKS.piece(tail, entry, _Choice(_Delta(reasoning_content=text)))
        case Arguments(delta=text, call=call):
            piece = {"index": call, "function": {"arguments": text}}
            return _CHUNKS.piece(tail, entry, _Choice(_Delta(tool_calls=[piece])))
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
        head = {"index": event.call, "id": call_id(accepted_of(tail).id, event.output_index), "type": "function"}
        delta.tool_calls = [head | {"function": {"name": event.name, "arguments": ""}}]
    elif event.output_index:
        return b""
    return _CHUNKS.piece(tail, entry, _Choice(delta))


def _last_chunks(tail: Tail, entry: Entry, event: Terminal) -> bytes:
    if isinstance(event, Failed | Cancelled):
        return _CHUNKS.failure(entry, event)
    has_calls = any(isinstance(e.event, ItemAdded) and e.event.item == "function_call" for e in tail)
    choice = _Choice(_Delta(), finish_reason(event, has_calls=has_calls))
    return _CHUNKS.end(tail, entry, choice, event.usage)


def finish_reason(event: Terminal, *, has_calls: bool = False) -> str:
    """In the words of chat completions."""
    if isinstance(event, Incomplete):
        return "length" if event.reason == "max_output_tokens" else "content_filter"
    return "tool_calls" if has_calls else "stop"


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
        "service_tier": accepted.request.service_tier or "default",
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
