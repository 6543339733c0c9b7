"""The format of legacy completions: text alone."""

from __future__ import annotations

from typing import Any

import msgspec

from formats.choices import end_of_choice, ended_choices
from formats.chunks import Chunks, usage_object
from formats.sse import Tail
from formats.transcript import Choice, Transcript
from schemas.events import TERMINAL, Cancelled, ChoiceEnd, Failed, ItemDone, Terminal, Text
from schemas.ids import completion_id
from schemas.logprobs import TokenLogprob


class _Choice(msgspec.Struct, gc=False):
    text: str
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None
    index: int = 0


_CHUNKS = Chunks(completion_id, "text_completion")


def encode_completions(tail: Tail, index: int) -> bytes:
    """The chunk of one entry, as SSE; structure events have none, unless a choice ends with them."""
    entry = tail[index]
    match entry.event:
        case Text(delta=text, logprobs=logprobs, choice=choice, offset=offset):
            found = _logprobs(logprobs, offset or _length(tail[:index], choice)) if logprobs else None
            return _CHUNKS.piece(tail, entry, _Choice(text, logprobs=found, index=choice))
        case ItemDone(end=ChoiceEnd() as end) if end.left:
            return _CHUNKS.piece(tail, entry, _Choice("", end.reason, index=end.choice))
        case event if isinstance(event, TERMINAL):
            return _last_chunks(tail, index, event)
        case _:
            return b""


def _length(entries: Tail, choice: int) -> int:
    """Of the text of a choice, counted where the log does not say it."""
    events = (entry.event for entry in entries)
    return sum(len(event.delta) for event in events if isinstance(event, Text) and event.choice == choice)


def _last_chunks(tail: Tail, index: int, event: Terminal) -> bytes:
    entry = tail[index]
    if isinstance(event, Failed | Cancelled):
        return _CHUNKS.failure(entry, event)
    end = end_of_choice(tail, index, event)
    return _CHUNKS.end(tail, entry, _Choice("", end.reason, index=end.choice), event.usage)


def completion(transcript: Transcript) -> dict[str, Any]:
    """The text_completion object of a response that was finished and did not fail."""
    accepted, terminal = transcript.accepted, transcript.terminal
    assert accepted is not None
    assert terminal is not None
    choices = [
        {
            "text": choice.text,
            "index": choice.index,
            "logprobs": _all_logprobs(choice) if accepted.request.logprobs else None,
            "finish_reason": reason,
        }
        for choice, reason in ended_choices(transcript)
    ]
    return {
        "id": completion_id(accepted.id),
        "object": "text_completion",
        "created": accepted.at_ms // 1000,
        "model": accepted.request.shown_model,
        "choices": choices,
        "usage": usage_object(terminal.usage),
    }


def _all_logprobs(choice: Choice) -> dict[str, Any]:
    return _logprobs([token for item in choice.items for token in item.logprobs], 0)


def _logprobs(tokens: list[TokenLogprob] | tuple[TokenLogprob, ...], offset: int) -> dict[str, Any]:
    """As parallel lists; `offset` is the length of the text before, in characters."""
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.token)
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{other.token: other.logprob for other in token.top} for token in tokens],
        "text_offset": offsets,
    }
