"""The chat completions format: chunks of text, a finish reason, usage where it was asked for."""

from __future__ import annotations

from typing import Any

import msgspec

from formats.choices import begins_choice, end_of_choice, end_reason, ended_choices
from formats.chunks import Chunks, usage_object
from formats.logprobs import logprob_objects
from formats.sse import Tail, accepted_of
from formats.transcript import Choice, Transcript
from schemas.events import (
    TERMINAL,
    Arguments,
    Cancelled,
    ChoiceEnd,
    EndReason,
    Failed,
    ItemAdded,
    ItemDone,
    Reasoning,
    Terminal,
    Text,
)
from schemas.ids import ResponseId, call_id, chat_id


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
        case Text(delta=text, logprobs=logprobs, choice=choice):
            found = {"content": logprob_objects(logprobs), "refusal": None} if logprobs else None
            return _CHUNKS.piece(tail, entry, _Choice(_Delta(content=text), index=choice, logprobs=found))
        case Reasoning(delta=text, choice=choice):
            return _CHUNKS.piece(tail, entry, _Choice(_Delta(reasoning_content=text), index=choice))
        case Arguments(delta=text, call=call, choice=choice):
            piece = {"index": call, "function": {"arguments": text}}
            return _CHUNKS.piece(tail, entry, _Choice(_Delta(tool_calls=[piece]), index=choice))
        case ItemAdded():
            return _item_added(tail, index, entry.event)
        case ItemDone(end=ChoiceEnd() as end) if end.left:
            return _CHUNKS.piece(tail, entry, _end_choice(end))
        case event if isinstance(event, TERMINAL):
            return _last_chunks(tail, index, event)
        case _:
            return b""


def _item_added(tail: Tail, index: int, event: ItemAdded) -> bytes:
    """The role with the first item of a choice; a call with its id and name."""
    delta = _Delta()
    is_first = begins_choice(tail, index, event)
    if is_first:
        delta.role = "assistant"
        delta.content = ""
    if event.item == "function_call":
        head = {"index": event.call, "id": call_id(accepted_of(tail).id, event.output_index), "type": "function"}
        delta.tool_calls = [head | {"function": {"name": event.name, "arguments": ""}}]
    elif not is_first:
        return b""
    return _CHUNKS.piece(tail, tail[index], _Choice(delta, index=event.choice))


def _last_chunks(tail: Tail, index: int, event: Terminal) -> bytes:
    entry = tail[index]
    if isinstance(event, Failed | Cancelled):
        return _CHUNKS.failure(entry, event)
    return _CHUNKS.end(tail, entry, _end_choice(end_of_choice(tail, index, event)), event.usage)


def _end_choice(end: ChoiceEnd) -> _Choice:
    return _Choice(_Delta(), choice_finish_reason(end), index=end.choice)


def finish_reason(event: Terminal, *, has_calls: bool = False) -> str:
    """Of a response with one choice, in the words of chat completions."""
    return _finish_reason(end_reason(event), has_calls=has_calls)


def choice_finish_reason(end: ChoiceEnd) -> str:
    """Of one choice."""
    return _finish_reason(end.reason, has_calls=end.calls > 0)


def _finish_reason(reason: EndReason, *, has_calls: bool) -> str:
    return "tool_calls" if has_calls and reason == "stop" else reason


def chat_completion(transcript: Transcript) -> dict[str, Any]:
    """The chat.completion object of a response that was finished and did not fail."""
    accepted, terminal = transcript.accepted, transcript.terminal
    assert accepted is not None
    assert terminal is not None
    choices = [
        {
            "index": choice.index,
            "message": _message(accepted.id, choice),
            "logprobs": _logprobs(choice) if accepted.request.logprobs else None,
            "finish_reason": _finish_reason(reason, has_calls=choice.calls > 0),
        }
        for choice, reason in ended_choices(transcript)
    ]
    return {
        "id": chat_id(accepted.id),
        "object": "chat.completion",
        "created": accepted.at_ms // 1000,
        "model": accepted.request.shown_model,
        "choices": choices,
        "usage": usage_object(terminal.usage),
        "service_tier": accepted.request.service_tier or "default",
    }


def _message(response_id: ResponseId, choice: Choice) -> dict[str, Any]:
    calls = [
        {
            "id": call_id(response_id, item.index),
            "type": "function",
            "function": {"name": item.name, "arguments": item.content},
        }
        for item in choice.items
        if item.kind == "function_call"
    ]
    text = choice.text
    message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None}
    message |= {"refusal": None, "annotations": []}
    if calls:
        message["tool_calls"] = calls
    reasoning = "".join(item.content for item in choice.items if item.kind == "reasoning")
    return message | ({"reasoning_content": reasoning} if reasoning else {})


def _logprobs(choice: Choice) -> dict[str, Any]:
    tokens = [token for item in choice.items for token in item.logprobs]
    return {"content": logprob_objects(tokens), "refusal": None}
