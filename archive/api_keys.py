"""API keys in SQL: the source of what the broker holds. The keys themselves are nowhere, only their SHA-256."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Row, bindparam, exists, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from archive.audit import write_audit
from archive.session import session
from archive.tables import api_keys, tenants
from archive.tenants import no_tenant
from archive.times import to_ms, to_time
from schemas.accounts import KeyInfo, Picture, ProjectedKey, shown_key_id
from schemas.errors import AccountConflict, AccountNotFound

_ACTIVE = (
    select(api_keys, tenants.c.limits.label("tenant_limits"))
    .join(tenants, tenants.c.name == api_keys.c.tenant)
    .where(api_keys.c.revoked_at.is_(None), tenants.c.disabled_at.is_(None))
)
_USED = (
    update(api_keys)
    .where(
        api_keys.c.id == bindparam("key"),
        or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at < bindparam("at")),
    )
    .values(last_used_at=bindparam("at"))
)


class KeyStore:
    """The rows of `api_keys`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def create(self, key: KeyInfo, digest: str, *, actor: str) -> None:
        """Raises AccountNotFound where there is no such tenant, ArchiveError."""
        async with session(self._engine) as connection:
            await _insert(connection, key, digest)
            await _note(connection, "key.create", key, actor, {"name": key.name, "scopes": list(key.scopes)})
            await connection.commit()

    async def revoke(self, key_id: str, at_ms: int, *, actor: str) -> KeyInfo:
        """May be repeated; the first time counts. Raises AccountNotFound, ArchiveError."""
        async with session(self._engine) as connection:
            key = await _find(connection, key_id)
            changed = await connection.execute(_unrevoked(key_id).values(revoked_at=to_time(at_ms)))
            if not changed.rowcount:
                return key
            await _note(connection, "key.revoke", key, actor, {})
            await connection.commit()
        return msgspec.structs.replace(key, revoked_at_ms=at_ms)

    async def rotate(self, old: KeyInfo, new: KeyInfo, digest: str, *, actor: str) -> None:
        """Put `new` in the place of `old`, which is as it should be from now on.

        Raises AccountConflict where it was revoked or rotated before, AccountNotFound, ArchiveError.
        """
        async with session(self._engine) as connection:
            changed = await connection.execute(
                _unrevoked(old.id)
                .where(api_keys.c.rotated_to.is_(None))
                .values(
                    expires_at=to_time(old.expires_at_ms),
                    revoked_at=to_time(old.revoked_at_ms),
                    rotated_to=bytes.fromhex(new.id),
                )
            )
            if not changed.rowcount:
                raise AccountConflict(f"The key {shown_key_id(old.id)} was revoked or rotated before.")
            await _insert(connection, new, digest)
            await _note(connection, "key.rotate", old, actor, {"rotated_to": shown_key_id(new.id)})
            await connection.commit()

    async def find(self, key_id: str) -> KeyInfo:
        """Raises AccountNotFound, ArchiveError."""
        async with session(self._engine) as connection:
            return await _find(connection, key_id)

    async def all(
        self, tenant: str | None = None, *, after: str | None = None, count: int | None = None
    ) -> list[KeyInfo]:
        """Of a tenant, or all; the oldest first, `count` of those behind the id `after`. Raises ArchiveError."""
        query = select(api_keys).order_by(api_keys.c.id).limit(count)
        if tenant is not None:
            query = query.where(api_keys.c.tenant == tenant)
        if after is not None:
            query = query.where(api_keys.c.id > bytes.fromhex(after))
        async with session(self._engine) as connection:
            return [_key(row) for row in await connection.execute(query)]

    async def has_any(self) -> bool:
        """Whether there ever was one. Raises ArchiveError."""
        async with session(self._engine) as connection:
            return await _has_any(connection)

    async def picture(self) -> Picture:
        """What the broker should hold. Raises ArchiveError."""
        async with session(self._engine) as connection:
            rows = (await connection.execute(_ACTIVE)).all()
            is_required = bool(rows) or await _has_any(connection)
        return Picture(keys={row.hash.hex(): _projected(row) for row in rows}, is_required=is_required)

    async def note_used(self, used: dict[str, int]) -> None:
        """Key id → when, unix ms; a later time that is there already stays. Raises ArchiveError."""
        # sorted, so that two gateways lock rows in the same order
        rows = [{"key": bytes.fromhex(key_id), "at": to_time(at_ms)} for key_id, at_ms in sorted(used.items())]
        async with session(self._engine) as connection:
            await connection.execute(_USED, rows)
            await connection.commit()


def _unrevoked(key_id: str) -> Any:
    return update(api_keys).where(api_keys.c.id == bytes.fromhex(key_id), api_keys.c.revoked_at.is_(None))


async def _insert(connection: AsyncConnection, key: KeyInfo, digest: str) -> None:
    if (await connection.execute(select(tenants.c.name).where(tenants.c.name == key.tenant))).one_or_none() is None:
        raise no_tenant(key.tenant)
    row = {
        "id": bytes.fromhex(key.id),
        "tenant": key.tenant,
        "name": key.name,
        "hash": bytes.fromhex(digest),
        "prefix": key.prefix,
        "scopes": " ".join(key.scopes),
        "limits": msgspec.json.encode(key.limits).decode() if key.limits else None,
        "created_at": to_time(key.created_at_ms),
        "expires_at": to_time(key.expires_at_ms),
    }
    await connection.execute(insert(api_keys), row)


async def _find(connection: AsyncConnection, key_id: str) -> KeyInfo:
    row = (await connection.execute(select(api_keys).where(api_keys.c.id == bytes.fromhex(key_id)))).one_or_none()
    if row is None:
        raise AccountNotFound(f"There is no key {shown_key_id(key_id)}.")
    return _key(row)


async def _has_any(connection: AsyncConnection) -> bool:
    return bool(await connection.scalar(select(exists().select_from(api_keys))))


async def _note(connection: AsyncConnection, action: str, key: KeyInfo, actor: str, detail: dict[str, Any]) -> None:
    subject = shown_key_id(key.id)
    await write_audit(connection, actor=actor, action=action, tenant=key.tenant, subject=subject, detail=detail)


def _key(row: Row[Any]) -> KeyInfo:
    return KeyInfo(
        id=row.id.hex(),
        tenant=row.tenant,
        name=row.name,
        prefix=row.prefix,
        scopes=tuple(row.scopes.split()),
        limits=msgspec.json.decode(row.limits or "{}"),
        created_at_ms=to_ms(row.created_at),
        expires_at_ms=to_ms(row.expires_at),
        last_used_at_ms=to_ms(row.last_used_at),
        revoked_at_ms=to_ms(row.revoked_at),
        rotated_to=row.rotated_to.hex() if row.rotated_to is not None else "",
    )


def _projected(row: Row[Any]) -> ProjectedKey:
    return ProjectedKey(
        id=row.id.hex(),
        tenant=row.tenant,
        scopes=tuple(row.scopes.split()),
        limits=msgspec.json.decode(row.limits or row.tenant_limits or "{}"),
        expires_at_ms=to_ms(row.expires_at) or 0,
    )
