"""What the archive keeps of a finished response."""

from __future__ import annotations

import msgspec

from schemas.ids import ResponseId
from schemas.requests import Format


class StoredEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A log entry in the archive: the id and the event's JSON exactly as the log had them."""

    id: str
    event: str


class ArchivedResponse(msgspec.Struct, frozen=True, kw_only=True):
    """One finished response: the columns of its row and its complete log, fences included."""

    id: ResponseId
    tenant: str
    format: Format
    model: str
    status: str
    accepted_at_ms: int
    """Unix time."""
    first_text_ms: int | None
    """From acceptance to the first text; None where there was none."""
    duration_ms: int
    """From acceptance to the end."""
    attempts: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    error_code: str | None = None
    entries: list[StoredEntry]
