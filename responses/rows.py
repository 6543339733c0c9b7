"""From a finished log to its row in the archive."""

from __future__ import annotations

from formats.chat import finish_reason
from formats.summary import summary_of
from formats.transcript import transcript_of
from responses.turns import turn_of
from schemas.archived import ArchivedResponse, StoredEntry
from schemas.conversations import Turn
from schemas.errors import LogUnfinished
from schemas.events import Completed, Failed, Incomplete, Usage, decode_events
from schemas.ids import ResponseId, bare_id, parse_response_id
from schemas.models import Models
from schemas.requests import GenerationRequest
from streams.logs import RawEntry, decode_entry

_MAX_MESSAGE = 500
_MAX_ENGINE = 64


def archived_response(response_id: ResponseId, raw: list[RawEntry], models: Models | None = None) -> ArchivedResponse:
    """The row of a finished log, with its cost where `models` has prices; without content where it is not to be stored.

    Raises BadEntry where it does not parse, LogUnfinished where it has no end.
    """
    summary = summary_of([entry_id for entry_id, _ in raw], decode_events([event for _, event in raw]))
    accepted, terminal = summary.accepted, summary.terminal
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
        status=str(summary.status),
        accepted_at_ms=accepted.at_ms,
        first_text_ms=summary.first_text_ms,
        duration_ms=terminal.t,
        attempts=summary.attempts,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        error_code=error.code if error else None,
        error_message=error.message[:_MAX_MESSAGE] if error and request.store else None,
        engine=summary.engine[:_MAX_ENGINE],
        finish_reason=finish_reason(terminal, has_calls=summary.calls > 0) if ended_well else None,
        reasoning_tokens=usage.reasoning_tokens,
        cost_micros=_cost_micros(request.model, usage, models),
        parent=parse_response_id(request.previous_response_id),
        retry_of=accepted.retry_of,
        conversation=bare_id(request.conversation, "conv_"),
        key_id=bare_id(accepted.key),
        lane=accepted.lane,
        is_stored=request.store,
        metadata=request.metadata if request.store and request.metadata else None,
        turn=_turn(request, raw),
        entries=[StoredEntry(entry_id, event.decode()) for entry_id, event in raw if request.store],
    )


def _turn(request: GenerationRequest, raw: list[RawEntry]) -> Turn | None:
    """What it adds to its conversation; most responses are in none, and need no transcript."""
    if not request.conversation:
        return None
    return turn_of(transcript_of(decode_entry(*entry) for entry in raw))


def _cost_micros(model: str, usage: Usage, models: Models | None) -> int | None:
    entry = models.get(model) if models is not None else None
    if entry is None or entry.prices is None:
        return None
    return entry.prices.cost_micros(
        input_tokens=usage.input_tokens, cached_tokens=usage.cached_tokens, output_tokens=usage.output_tokens
    )
