"""Deleting what is older than its tenant wants it kept: bounded batches, each with its audit row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Table, bindparam, delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from archive.store import Archive
from archive.tables import audit, conversations, responses, tenants
from schemas.ids import ResponseId, id_from_bytes, id_to_bytes, new_id

ACTION = "retention.delete"
"""As the audit names it."""

_OWN_DAYS = select(tenants.c.name, tenants.c.retention_days).where(tenants.c.retention_days.is_not(None))


class ArchiveRetention:
    """What retention needs of the archive. Everything raises ArchiveError."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    async def days_of_tenants(self, default: int) -> dict[str, int]:
        """Every tenant that may have something to delete, and for how many days it is kept; 0: for ever."""
        async with self._archive.connection() as connection:
            own = {row.name: int(row.retention_days) for row in await connection.execute(_OWN_DAYS)}
            if not default:
                return own
            names = await _tenants_in(connection, responses) | await _tenants_in(connection, conversations)
        return dict.fromkeys(names, default) | own

    async def expired_responses(self, tenant: str, before: datetime, limit: int) -> list[ResponseId]:
        """Responses of a tenant that ended before, the oldest first."""
        query = (
            select(responses.c.id)
            .where(responses.c.tenant == tenant, responses.c.ended_at < _naive(before))
            .order_by(responses.c.ended_at)
            .limit(limit)
        )
        async with self._archive.connection() as connection:
            return [id_from_bytes(raw) for raw in (await connection.execute(query)).scalars()]

    async def delete_responses(self, tenant: str, ids: Sequence[ResponseId], *, actor: str, before: datetime) -> int:
        """Delete rows and logs for good; how many rows there were. What they used stays in `usage_hours`."""
        rows = delete(responses).where(responses.c.id.in_([id_to_bytes(response_id) for response_id in ids]))
        async with self._archive.connection() as connection:
            deleted = (await connection.execute(rows)).rowcount
            if deleted:
                await _note(connection, tenant, "responses", deleted, actor, before)
            await connection.commit()
        return deleted

    async def delete_conversations(self, tenant: str, *, limit: int, actor: str, before: datetime) -> int:
        """Delete conversations that did not change since, with their items; how many there were, at most `limit`."""
        is_expired = (conversations.c.tenant == tenant) & (conversations.c.updated_at < _naive(before))
        oldest = select(conversations.c.id).where(is_expired).order_by(conversations.c.updated_at).limit(limit)
        async with self._archive.connection() as connection:
            keys = list((await connection.execute(oldest)).scalars())
            # a turn may have been added since
            rows = delete(conversations).where(conversations.c.id.in_(keys), is_expired)
            deleted = (await connection.execute(rows)).rowcount if keys else 0
            if deleted:
                await _note(connection, tenant, "conversations", deleted, actor, before)
            await connection.commit()
        return deleted

    async def note_letters(self, tenant: str, count: int, *, actor: str, before: datetime) -> None:
        """The audit row of dead letters that were deleted in the broker."""
        async with self._archive.connection() as connection:
            await _note(connection, tenant, "dead letters", count, actor, before)
            await connection.commit()


async def _tenants_in(connection: AsyncConnection, table: Table) -> set[str]:
    """Every tenant of a table, from one to the next: each step is a look into its index, however long the table is."""
    following = select(func.min(table.c.tenant)).where(table.c.tenant > bindparam("after"))
    found: set[str] = set()
    name = ""
    while (following_name := await connection.scalar(following, {"after": name})) is not None:
        name = following_name
        found.add(name)
    return found


async def _note(
    connection: AsyncConnection, tenant: str, subject: str, count: int, actor: str, before: datetime
) -> None:
    now = datetime.now(UTC)
    detail = {"count": count, "before": before.isoformat(timespec="seconds")}
    row = {
        "id": new_id(),
        "at": _naive(now),
        "actor": actor,
        "action": ACTION,
        "tenant": tenant,
        "subject": subject,
        "detail": json.dumps(detail),
    }
    await connection.execute(audit.insert(), [row])


def _naive(time: datetime) -> datetime:
    """As the tables have it: UTC without saying so."""
    return time.astimezone(UTC).replace(tzinfo=None)
