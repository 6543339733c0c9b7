"""From a finished log to its row in the archive."""

from __future__ import annotations

from formats.transcript import transcript_of
from schemas.archived import ArchivedResponse, StoredEntry
from schemas.errors import LogUnfinished
from schemas.events import Failed, Usage
from schemas.ids import ResponseId
from streams.logs import RawEntry, decode_entry


def archived_response(response_id: ResponseId, raw: list[RawEntry]) -> ArchivedResponse:
    """The row of a finished log. Raises BadEntry where it does not parse, LogUnfinished where it has no end."""
    transcript = transcript_of([decode_entry(*entry) for entry in raw])
    accepted, terminal = transcript.accepted, transcript.terminal
    if accepted is None or terminal is None:
        raise LogUnfinished
    usage: Usage = terminal.usage
    return ArchivedResponse(
        id=response_id,
        tenant=accepted.tenant,
        format=accepted.format,
        model=accepted.request.model,
        status=str(transcript.status),
        accepted_at_ms=accepted.at_ms,
        first_text_ms=transcript.first_text_ms,
        duration_ms=terminal.t,
        attempts=transcript.attempts,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        error_code=terminal.error.code if isinstance(terminal, Failed) else None,
        entries=[StoredEntry(entry_id, event.decode()) for entry_id, event in raw],
    )
