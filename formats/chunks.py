"""What the streams of chat completions and of legacy completions share: chunks that differ in their choices."""

from __future__ import annotations

from typing import Any

import msgspec

from formats.sse import Tail, accepted_of, frame
from schemas.errors import type_of_code
from schemas.events import Cancelled, Entry, Failed, Usage

_encode = msgspec.json.Encoder().encode


class Chunk(msgspec.Struct, gc=False):
    """Structs instead of dicts: one is encoded for every token."""

    id: str
    object: str
    created: int
    model: str
    choices: tuple[msgspec.Struct, ...]
    usage: dict[str, Any] | msgspec.UnsetType | None
    service_tier: str | msgspec.UnsetType


class Chunks(msgspec.Struct, frozen=True):
    """How one of the two formats names its chunks."""

    shown_id: Any
    """Response id → the id as this format shows it."""
    object: str

    def piece(self, tail: Tail, entry: Entry, choice: msgspec.Struct) -> bytes:
        """The SSE event of an entry with one choice."""
        return frame(self._body(tail, (choice,), None), entry_id=str(entry.id))

    def end(self, tail: Tail, entry: Entry, choice: msgspec.Struct, usage: Usage) -> bytes:
        """The last choice, and the usage where it was asked for; the entry's id stands on the last event."""
        if not accepted_of(tail).request.include_usage:
            return self.piece(tail, entry, choice)
        last = self._body(tail, (), usage_object(usage))
        return frame(self._body(tail, (choice,), None)) + frame(last, entry_id=str(entry.id))

    def failure(self, entry: Entry, event: Failed | Cancelled) -> bytes:
        """The SSE event of a response that ended with none of its own."""
        return frame(_encode({"error": _error_object(event)}), entry_id=str(entry.id))

    def _body(self, tail: Tail, choices: tuple[msgspec.Struct, ...], usage: dict[str, Any] | None) -> bytes:
        """Where usage was asked for, every chunk says that it has none yet; where a service tier was, which it is."""
        accepted = accepted_of(tail)
        shown = usage if accepted.request.include_usage else msgspec.UNSET
        return _encode(
            Chunk(
                self.shown_id(accepted.id),
                self.object,
                accepted.at_ms // 1000,
                accepted.request.shown_model,
                choices,
                shown,
                accepted.request.service_tier or msgspec.UNSET,
            )
        )


def _error_object(event: Failed | Cancelled) -> dict[str, Any]:
    if isinstance(event, Cancelled):
        return {"message": "The response was cancelled.", "type": "server_error", "param": None, "code": "cancelled"}
    code = event.error.code
    return {"message": event.error.message, "type": type_of_code(code), "param": None, "code": code}


def usage_object(usage: Usage) -> dict[str, Any]:
    """In the words of both formats."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
