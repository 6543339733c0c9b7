"""`openchat export`: archived responses as JSON lines."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from archive.connect import open_archive
from archive.export import ArchiveExport
from responses.export import export_object
from schemas.errors import SettingsError
from schemas.settings import Settings


async def export(settings: Settings, *, tenant: str | None, since: str, until: str, with_events: bool) -> None:
    """Print one JSON object a line, by the time of acceptance. Raises SettingsError, ArchiveError, BadEntry."""
    async with open_archive(settings.database_url) as archive:
        since_ms, until_ms = _time_ms(since) or 0, _time_ms(until)
        stored = ArchiveExport(archive.engine)
        async for archived in stored.responses(tenant=tenant, since_ms=since_ms, until_ms=until_ms):
            print(msgspec.json.encode(export_object(archived, with_events=with_events)).decode())


def _time_ms(text: str) -> int | None:
    """Unix ms of a date or time, UTC where it does not say otherwise; None for none. Raises SettingsError."""
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as exc:
        raise SettingsError(f"{text!r} is no time; write it like 2026-11-25 or 2026-11-25T14:00:00Z") from exc
    return round((time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp() * 1000)
