"""Deleting what is older than its tenant wants it kept: bounded batches, each with its audit row."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Table, bindparam, delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from archive.audit import write_audit
from archive.session import session
from archive.tables import conversations, responses, tenants
from archive.times import to_time
from schemas.ids import ResponseId, id_from_bytes, id_to_bytes

ACTION = "retention.delete"
"""As the audit names it."""

_OWN_DAYS = select(tenants.c.name, tenants.c.retention_days).where(tenants.c.retention_days.is_not(None))


class ArchiveRetention:
    """What retention needs of the archive. Everything raises ArchiveError."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def days_of_tenants(self, default: int) -> dict[str, int]:
        """Every tenant that may have something to delete, and for how many days it is kept; 0: for ever."""
        async with session(self._engine) as connection:
            own = {row.name: int(row.retention_days) for row in await connection.execute(_OWN_DAYS)}
            if not default:
                return own
            names = await _tenants_in(connection, responses) | await _tenants_in(connection, conversations)
        return dict.fromkeys(names, default) | own

    async def expired_responses(self, tenant: str, before_ms: int, limit: int) -> list[ResponseId]:
        """Responses of a tenant that ended before, the oldest first."""
        query = (
            select(responses.c.id)
            .where(responses.c.tenant == tenant, responses.c.ended_at < to_time(before_ms))
            .order_by(responses.c.ended_at)
            .limit(limit)
        )
        async with session(self._engine) as connection:
            return [id_from_bytes(raw) for raw in (await connection.execute(query)).scalars()]

    async def delete_responses(self, tenant: str, ids: Sequence[ResponseId], *, actor: str, before_ms: int) -> int:
        """Delete rows and logs for good; how many rows there were. What they used stays in `usage_hours`."""
        rows = delete(responses).where(responses.c.id.in_([id_to_bytes(response_id) for response_id in ids]))
        async with session(self._engine) as connection:
            deleted = (await connection.execute(rows)).rowcount
            if deleted:
                await _note(connection, tenant, "responses", deleted, actor, before_ms)
            await connection.commit()
        return deleted

    async def delete_conversations(self, tenant: str, *, limit: int, actor: str, before_ms: int) -> int:
        """Delete conversations that did not change since, with their items; how many there were, at most `limit`."""
        is_expired = (conversations.c.tenant == tenant) & (conversations.c.updated_at < to_time(before_ms))
        oldest = select(conversations.c.id).where(is_expired).order_by(conversations.c.updated_at).limit(limit)
        async with session(self._engine) as connection:
            keys = list((await connection.execute(oldest)).scalars())
            # a turn may have been added since
            rows = delete(conversations).where(conversations.c.id.in_(keys), is_expired)
            deleted = (await connection.execute(rows)).rowcount if keys else 0
            if deleted:
                await _note(connection, tenant, "conversations", deleted, actor, before_ms)
            await connection.commit()
        return deleted

    async def note_letters(self, tenant: str, count: int, *, actor: str, before_ms: int) -> None:
        """The audit row of dead letters that were deleted in the broker."""
        async with session(self._engine) as connection:
            await _note(connection, tenant, "dead letters", count, actor, before_ms)
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


async def _note(connection: AsyncConnection, tenant: str, subject: str, count: int, actor: str, before_ms: int) -> None:
    detail = {"count": count, "before_ms": before_ms}
    await write_audit(connection, actor=actor, action=ACTION, tenant=tenant, subject=subject, detail=detail)
