"""The format of legacy completions: text alone."""

from __future__ import annotations

from typing import Any

import msgspec

from formats.chat import finish_reason
from formats.chunks import Chunks, usage_object
from formats.sse import Tail
from formats.transcript import Transcript
from schemas.events import TERMINAL, Cancelled, Entry, Failed, Terminal, Text
from schemas.ids import completion_id
from schemas.logprobs import TokenLogprob


class _Choice(msgspec.Struct, gc=False):
    text: str
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None
    index: int = 0


_CHUNKS = Chunks(completion_id, "text_completion")


def encode_completions(tail: Tail, index: int) -> bytes:
    """The chunk of one entry, as SSE; structure events have none."""
    entry = tail[index]
    match entry.event:
        case Text(delta=text, logprobs=logprobs):
            found = _logprobs(logprobs, _length(tail[:index])) if logprobs else None
            return _CHUNKS.piece(tail, entry, _Choice(text, logprobs=found))
        case event if isinstance(event, TERMINAL):
            return _last_chunks(tail, entry, event)
        case _:
            return b""


def _length(entries: Tail) -> int:
    return sum(len(entry.event.delta) for entry in entries if isinstance(entry.event, Text))


def _last_chunks(tail: Tail, entry: Entry, event: Terminal) -> bytes:
    if isinstance(event, Failed | Cancelled):
        return _CHUNKS.failure(entry, event)
    return _CHUNKS.end(tail, entry, _Choice("", finish_reason(event)), event.usage)


def completion(transcript: Transcript) -> dict[str, Any]:
    """The text_completion object of a response that was finished and did not fail."""
    accepted, terminal = transcript.accepted, transcript.terminal
    assert accepted is not None
    assert terminal is not None
    tokens = [token for item in transcript.items for token in item.logprobs]
    choice = {
        "text": transcript.text,
        "index": 0,
        "logprobs": _logprobs(tokens, 0) if accepted.request.logprobs else None,
        "finish_reason": finish_reason(terminal),
    }
    return {
        "id": completion_id(accepted.id),
        "object": "text_completion",
        "created": accepted.at_ms // 1000,
        "model": accepted.request.shown_model,
        "choices": [choice],
        "usage": usage_object(terminal.usage),
    }


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
