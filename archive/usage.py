"""Usage by hour, tenant, model and key: sums that are written with the rows that they are made of."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Insert
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from archive.tables import NO_KEY, usage_hours
from schemas.archived import ArchivedResponse

_KEYS = ("tenant", "hour", "model", "key_id")
_SUMS = ("requests", "failed", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "cost_micros")
_HOUR_S = 3600


async def add_usage(connection: AsyncConnection, written: Iterable[ArchivedResponse]) -> None:
    """Add responses whose rows this transaction has written. Last in it: everybody waits for these rows."""
    hours = sum_by_hour(written)
    if hours:
        # sorted, so that two archivers lock rows in the same order
        rows = [dict(zip(_KEYS, key, strict=True)) | sums for key, sums in sorted(hours.items())]
        await connection.execute(_adding(connection.dialect.name), rows)


def sum_by_hour(written: Iterable[ArchivedResponse]) -> dict[tuple[str, datetime, str, bytes], dict[str, int]]:
    """Sums by tenant, hour of the end, model and key."""
    hours: dict[tuple[str, datetime, str, bytes], dict[str, int]] = {}
    for response in written:
        key = (response.tenant, _hour(response.ended_at_ms), response.model, response.key_id or NO_KEY)
        sums = hours.setdefault(key, dict.fromkeys(_SUMS, 0))
        sums["requests"] += 1
        sums["failed"] += response.status == "failed"
        sums["input_tokens"] += response.input_tokens
        sums["output_tokens"] += response.output_tokens
        sums["cached_tokens"] += response.cached_tokens
        sums["reasoning_tokens"] += response.reasoning_tokens
        sums["cost_micros"] += response.cost_micros or 0
    return hours


def _hour(unix_ms: int) -> datetime:
    seconds = unix_ms // 1000
    return datetime.fromtimestamp(seconds - seconds % _HOUR_S, UTC).replace(tzinfo=None)


def _adding(dialect: str) -> Insert:
    columns = usage_hours.c
    if dialect == "sqlite":
        statement = sqlite.insert(usage_hours)
        sums: dict[str, Any] = {name: columns[name] + statement.excluded[name] for name in _SUMS}
        return statement.on_conflict_do_update(index_elements=list(_KEYS), set_=sums)
    adding = mysql.insert(usage_hours)
    return adding.on_duplicate_key_update({name: columns[name] + adding.inserted[name] for name in _SUMS})
