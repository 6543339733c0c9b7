"""Usage and cost, summed up from `usage_hours`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from archive.session import session
from archive.tables import NO_KEY, usage_hours
from schemas.usage import UsageGroup, UsageQuery, UsageRow

MAX_ROWS = 10_000
"""Of one report; what is beyond is cut off."""
_GROUPS: Mapping[UsageGroup, ColumnElement[Any]] = {
    "tenant": usage_hours.c.tenant,
    "model": usage_hours.c.model,
    "key": usage_hours.c.key_id,
    "hour": usage_hours.c.hour,
    "day": func.date(usage_hours.c.hour),
}
_SUMS = ("requests", "failed", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "cost_micros")


class UsageReports:
    """Sums over the hours of `usage_hours`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def report(self, query: UsageQuery) -> list[UsageRow]:
        """A row for each group that has any, in order; one row in all where nothing is grouped. Raises ArchiveError."""
        groups = [_GROUPS[name].label(f"by_{name}") for name in query.group_by]
        hour = usage_hours.c.hour
        sums = [func.coalesce(func.sum(usage_hours.c[name]), 0).label(name) for name in _SUMS]
        statement = select(*groups, *sums).where(hour >= query.start, hour < query.end).limit(MAX_ROWS)
        if query.tenant is not None:
            statement = statement.where(usage_hours.c.tenant == query.tenant)
        if groups:
            statement = statement.group_by(*groups).order_by(*groups)
        async with session(self._engine) as connection:
            return [_usage(row) for row in (await connection.execute(statement)).mappings()]


def _usage(row: RowMapping) -> UsageRow:
    key = row.get("by_key")
    time = row.get("by_hour") or row.get("by_day")
    return UsageRow(
        tenant=row.get("by_tenant"),
        model=row.get("by_model"),
        key=None if key is None else "" if key == NO_KEY else key.hex(),
        time=time.isoformat() if isinstance(time, datetime) else str(time) if time is not None else None,
        **{name: int(row[name]) for name in _SUMS},
    )
