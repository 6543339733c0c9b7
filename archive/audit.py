"""Audit rows: each in the transaction of what it tells of, so that there is no change without one."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from sqlalchemy import Row, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from archive.session import session
from archive.tables import audit
from archive.times import to_ms, to_time
from schemas.accounts import AuditRecord, new_key_id


async def write_audit(
    connection: AsyncConnection, *, actor: str, action: str, tenant: str | None, subject: str, detail: dict[str, Any]
) -> None:
    """Add a row to the transaction of `connection`."""
    row = {
        "id": bytes.fromhex(new_key_id()),
        "at": to_time(time.time_ns() // 1_000_000),
        "actor": actor,
        "action": action,
        "tenant": tenant,
        "subject": subject,
        "detail": msgspec.json.encode(detail).decode(),
    }
    await connection.execute(insert(audit), row)


class AuditLog:
    """The rows of `audit`, for who looks."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def newest(self, count: int, *, before: str | None = None) -> list[AuditRecord]:
        """The newest first; only those older than the one with the id `before`. Raises ArchiveError."""
        query = select(audit).order_by(audit.c.id.desc()).limit(count)
        if before is not None:
            query = query.where(audit.c.id < bytes.fromhex(before))
        async with session(self._engine) as connection:
            return [_record(row) for row in await connection.execute(query)]


def _record(row: Row[Any]) -> AuditRecord:
    return AuditRecord(
        id=row.id.hex(),
        at_ms=to_ms(row.at),
        actor=row.actor,
        action=row.action,
        tenant=row.tenant or "",
        subject=row.subject,
        detail=msgspec.json.decode(row.detail),
    )
