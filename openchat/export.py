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
        found = ArchiveExport(archive).responses(tenant=tenant, since=_time(since), until=_time(until))
        async for archived in found:
            print(msgspec.json.encode(export_object(archived, with_events=with_events)).decode())


def _time(text: str) -> datetime | None:
    """A date or time, UTC where it does not say otherwise; None where nothing is given. Raises SettingsError."""
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as exc:
        raise SettingsError(f"{text!r} is no time; write it like 2026-11-25 or 2026-11-25T14:00:00Z") from exc
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
