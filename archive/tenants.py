"""Tenants in SQL."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from archive.audit import write_audit
from archive.session import session
from archive.tables import tenants
from archive.times import to_ms, to_time
from schemas.accounts import Tenant
from schemas.errors import AccountConflict, AccountNotFound, RowRefused


class TenantStore:
    """The rows of `tenants`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def create(self, tenant: Tenant, *, actor: str) -> None:
        """Raises AccountConflict where there is one of this name, ArchiveError."""
        try:
            async with session(self._engine) as connection:
                await connection.execute(insert(tenants), {"name": tenant.name, **_columns(tenant)})
                await _note(connection, "tenant.create", tenant, actor)
                await connection.commit()
        except RowRefused as exc:
            raise AccountConflict(f"There is a tenant {tenant.name!r} already.") from exc

    async def put(self, tenant: Tenant, *, actor: str) -> None:
        """Replace everything but its name and birth. Raises AccountNotFound, ArchiveError."""
        async with session(self._engine) as connection:
            values = _columns(tenant)
            del values["created_at"]
            changed = await connection.execute(update(tenants).where(tenants.c.name == tenant.name).values(values))
            if not changed.rowcount:
                raise no_tenant(tenant.name)
            await _note(connection, "tenant.update", tenant, actor)
            await connection.commit()

    async def find(self, name: str) -> Tenant:
        """Raises AccountNotFound, ArchiveError."""
        async with session(self._engine) as connection:
            row = (await connection.execute(select(tenants).where(tenants.c.name == name))).one_or_none()
        if row is None:
            raise no_tenant(name)
        return _tenant(row)

    async def all(self, *, after: str = "", count: int | None = None) -> list[Tenant]:
        """By name, `count` of those behind the name `after`. Raises ArchiveError."""
        query = select(tenants).where(tenants.c.name > after).order_by(tenants.c.name).limit(count)
        async with session(self._engine) as connection:
            return [_tenant(row) for row in await connection.execute(query)]


def no_tenant(name: str) -> AccountNotFound:
    """The error for a name that nobody has."""
    return AccountNotFound(f"There is no tenant {name[:64]!r}.")


async def _note(connection: AsyncConnection, action: str, tenant: Tenant, actor: str) -> None:
    detail = msgspec.to_builtins(tenant)
    await write_audit(connection, actor=actor, action=action, tenant=tenant.name, subject=tenant.name, detail=detail)


def _columns(tenant: Tenant) -> dict[str, Any]:
    return {
        "created_at": to_time(tenant.created_at_ms),
        "metadata": msgspec.json.encode(tenant.metadata).decode(),
        "retention_days": tenant.retention_days,
        "limits": msgspec.json.encode(tenant.limits).decode() if tenant.limits else None,
        "disabled_at": to_time(tenant.disabled_at_ms),
    }


def _tenant(row: Row[Any]) -> Tenant:
    return Tenant(
        name=row.name,
        created_at_ms=to_ms(row.created_at),
        metadata=msgspec.json.decode(row.metadata),
        retention_days=row.retention_days,
        limits=msgspec.json.decode(row.limits or "{}"),
        disabled_at_ms=to_ms(row.disabled_at),
    )
