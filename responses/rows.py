"""From a finished log to its row in the archive."""

from __future__ import annotations

from formats.chat import finish_reason
from formats.transcript import transcript_of
from responses.turns import turn_of
from schemas.archived import ArchivedResponse, StoredEntry
from schemas.errors import LogUnfinished
from schemas.events import Completed, Entry, Failed, Incomplete, InProgress, Usage
from schemas.ids import ResponseId, bare_id, parse_response_id
from schemas.models import Models
from streams.logs import RawEntry, decode_entry

_MAX_MESSAGE = 500
_MAX_ENGINE = 64


def archived_response(response_id: ResponseId, raw: list[RawEntry], models: Models | None = None) -> ArchivedResponse:
    """The row of a finished log, with its cost where `models` has prices; without content where it is not to be stored.

    Raises BadEntry where it does not parse, LogUnfinished where it has no end.
    """
    entries = [decode_entry(*entry) for entry in raw]
    transcript = transcript_of(entries)
    accepted, terminal = transcript.accepted, transcript.terminal
    if accepted is None or terminal is None:
        raise LogUnfinished
    usage: Usage = terminal.usage
    request = accepted.request
    ended_well = isinstance(terminal, Completed | Incomplete)
    error = terminal.error if isinstance(terminal, Failed) else None
    return ArchivedResponse(
        id=response_id,
        tenant=accepted.tenant,
        format=accepted.format,
        model=request.model,
        status=str(transcript.status),
        accepted_at_ms=accepted.at_ms,
        first_text_ms=transcript.first_text_ms,
        duration_ms=terminal.t,
        attempts=transcript.attempts,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        error_code=error.code if error else None,
        error_message=error.message[:_MAX_MESSAGE] if error and request.store else None,
        engine=_engine(entries),
        finish_reason=finish_reason(terminal, has_calls=transcript.calls > 0) if ended_well else None,
        reasoning_tokens=usage.reasoning_tokens,
        cost_micros=_cost_micros(request.model, usage, models),
        parent=parse_response_id(request.previous_response_id),
        retry_of=accepted.retry_of,
        conversation=bare_id(request.conversation, "conv_"),
        key_id=bare_id(accepted.key),
        lane=accepted.lane,
        is_stored=request.store,
        turn=turn_of(transcript),
        entries=[StoredEntry(entry_id, event.decode()) for entry_id, event in raw if request.store],
    )


def _cost_micros(model: str, usage: Usage, models: Models | None) -> int | None:
    entry = models.get(model) if models is not None else None
    if entry is None or entry.prices is None:
        return None
    return entry.prices.cost_micros(
        input_tokens=usage.input_tokens, cached_tokens=usage.cached_tokens, output_tokens=usage.output_tokens
    )


def _engine(entries: list[Entry]) -> str:
    """The engine that began it; empty where none did, or it did not say."""
    began = (entry.event for entry in entries if isinstance(entry.event, InProgress))
    return next((event.engine[:_MAX_ENGINE] for event in began), "")
