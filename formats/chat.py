"""The chat completions format: chunks of text, a finish reason, usage where it was asked for."""

from __future__ import annotations

from typing import Any

import msgspec

from formats.sse import Tail, frame
from formats.transcript import Transcript
from schemas.events import TERMINAL, Accepted, Cancelled, Entry, Failed, Incomplete, ItemAdded, Terminal, Text, Usage
from schemas.ids import chat_id

_encode = msgspec.json.Encoder().encode


class _Delta(msgspec.Struct, omit_defaults=True, gc=False):
    role: str | msgspec.UnsetType = msgspec.UNSET
    content: str | msgspec.UnsetType = msgspec.UNSET


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta
    finish_reason: str | None = None
    index: int = 0
    logprobs: None = None


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
        case Text(delta=text):
            return _chunk(tail, entry, _Choice(_Delta(content=text)))
        case ItemAdded():
            return _chunk(tail, entry, _Choice(_Delta(role="assistant", content="")))
        case event if isinstance(event, TERMINAL):
            return _last_chunks(tail, entry, event)
        case _:
            return b""


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
            accepted.request.model,
            choices,
            usage,
        )
    )


def _last_chunks(tail: Tail, entry: Entry, event: Terminal) -> bytes:
    if isinstance(event, Failed | Cancelled):
        return frame(_encode({"error": _error(event)}), entry_id=str(entry.id))
    accepted = _accepted(tail)
    with_usage = accepted.request.include_usage
    finish = _chunk(tail, entry, _Choice(_Delta(), finish_reason(event)), is_last=not with_usage)
    if not with_usage:
        return finish
    return finish + frame(_body(accepted, (), _usage(event.usage)), entry_id=str(entry.id))


def _error(event: Failed | Cancelled) -> dict[str, Any]:
    if isinstance(event, Cancelled):
        return {"message": "The response was cancelled.", "type": "server_error", "param": None, "code": "cancelled"}
    return {"message": event.error.message, "type": "server_error", "param": None, "code": event.error.code}


def finish_reason(event: Terminal) -> str:
    """In the words of chat completions."""
    if isinstance(event, Incomplete):
        return "length" if event.reason == "max_output_tokens" else "content_filter"
    return "stop"


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def chat_completion(transcript: Transcript) -> dict[str, Any]:
    """The chat.completion object of a response that was finished and did not fail."""
    accepted, terminal = transcript.accepted, transcript.terminal
    assert accepted is not None
    assert terminal is not None
    message: dict[str, Any] = {"role": "assistant", "content": transcript.text, "refusal": None, "annotations": []}
    return {
        "id": chat_id(accepted.id),
        "object": "chat.completion",
        "created": accepted.at_ms // 1000,
        "model": accepted.request.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(terminal)}],
        "usage": _usage(terminal.usage),
        "service_tier": "default",
    }
