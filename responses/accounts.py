"""Tenants and keys: changed in SQL, then shown to every gateway by the broker.

SQL is the source. The broker's picture is made anew as a whole from there, after each change and whenever it
is lost or differs: so it does not matter where a process died, or what the broker lost.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from archive.api_keys import KeyStore
from archive.tenants import TenantStore
from responses.keys import PREFIX_LENGTH, key_digest, random_key
from schemas.accounts import SCOPES, KeyInfo, Picture, Scope, Tenant, new_key_id, now_ms
from schemas.admin import TenantChanges
from schemas.errors import AccountConflict, BrokerError, InvalidRequest, OpenChatError
from streams.projection import KeyProjection

log = logging.getLogger(__name__)

_TRIES = 10
"""Others may change keys at the same moment; then SQL is read again."""


class Accounts:
    """What administrators do."""

    def __init__(self, tenants: TenantStore, keys: KeyStore, projection: KeyProjection) -> None:
        self.tenants = tenants
        self.keys = keys
        self._projection = projection
        self._restoring = asyncio.Lock()

    async def create_tenant(
        self,
        name: str,
        *,
        actor: str,
        metadata: dict[str, str] | None = None,
        retention_days: int | None = None,
        limits: dict[str, Any] | None = None,
    ) -> Tenant:
        """Raises AccountConflict where there is one, ArchiveError."""
        tenant = Tenant(
            name=name,
            created_at_ms=now_ms(),
            metadata=metadata or {},
            retention_days=retention_days,
            limits=limits or {},
        )
        await self.tenants.create(tenant, actor=actor)
        return tenant

    async def change_tenant(self, name: str, changes: TenantChanges, *, actor: str) -> tuple[Tenant, bool]:
        """As it is now, and whether every gateway knows. Raises AccountNotFound, ArchiveError."""
        tenant = await self.tenants.find(name)
        given = {k: v for k, v in msgspec.structs.asdict(changes).items() if v is not msgspec.UNSET}
        is_disabled = given.pop("disabled", tenant.disabled_at_ms is not None)
        disabled_at_ms = (tenant.disabled_at_ms or now_ms()) if is_disabled else None
        tenant = msgspec.structs.replace(tenant, **given, disabled_at_ms=disabled_at_ms)
        await self.tenants.put(tenant, actor=actor)
        return tenant, await self._show()

    async def create_key(
        self,
        tenant: str,
        *,
        actor: str,
        name: str = "key",
        scopes: tuple[Scope, ...] = SCOPES,
        limits: dict[str, Any] | None = None,
        expires_at_ms: int | None = None,
    ) -> tuple[str, KeyInfo, bool]:
        """The key, which nobody can tell again, its row, and whether every gateway knows it.

        Raises AccountNotFound for the tenant, InvalidRequest, ArchiveError.
        """
        at_ms = now_ms()
        if expires_at_ms is not None and expires_at_ms <= at_ms:
            raise InvalidRequest("The key would have expired already.", param="expires_at_ms")
        key = random_key()
        info = KeyInfo(
            id=new_key_id(),
            tenant=tenant,
            name=name,
            prefix=key[:PREFIX_LENGTH],
            scopes=tuple(scope for scope in SCOPES if scope in scopes),
            limits=limits or {},
            created_at_ms=at_ms,
            expires_at_ms=expires_at_ms,
        )
        await self.keys.create(info, key_digest(key), actor=actor)
        return key, info, await self._show()

    async def revoke_key(self, key_id: str, *, actor: str) -> tuple[KeyInfo, bool]:
        """As it is now, and whether every gateway knows; may be repeated. Raises AccountNotFound, ArchiveError."""
        return await self.keys.revoke(key_id, now_ms(), actor=actor), await self._show()

    async def rotate_key(self, key_id: str, *, grace_s: int, actor: str) -> tuple[str, KeyInfo, bool]:
        """A new key in the place of one that still opens for `grace_s`; as `create_key`.

        Raises AccountNotFound, AccountConflict where it does not open any more, ArchiveError.
        """
        at_ms = now_ms()
        old = await self.keys.find(key_id)
        if old.state(at_ms) != "active":
            raise AccountConflict(f"The key is {old.state(at_ms)}; make a new one instead.")
        key = random_key()
        new = msgspec.structs.replace(
            old, id=new_key_id(), prefix=key[:PREFIX_LENGTH], created_at_ms=at_ms, last_used_at_ms=None, rotated_to=""
        )
        until_ms = at_ms + grace_s * 1000
        until_ms = min(until_ms, old.expires_at_ms or until_ms)
        old = msgspec.structs.replace(old, expires_at_ms=until_ms, revoked_at_ms=None if grace_s else at_ms)
        await self.keys.rotate(old, new, key_digest(key), actor=actor)
        return key, new, await self._show()

    async def project(self) -> Picture:
        """Make the broker's picture equal to SQL. Raises ArchiveError, BrokerError."""
        for _ in range(_TRIES):
            seen = await self._projection.look()
            picture = await self.keys.picture()
            if seen.version and seen.fingerprint == picture.fingerprint:
                return picture
            if await self._projection.put(picture, seen):
                log.info("keys_projected keys=%d lost=%s", len(picture.keys), not seen.version)
                return picture
        raise BrokerError("The API keys change too fast to be shown; try again.")

    async def restore(self) -> None:
        """Project where the broker has nothing; many that wait share one. Raises ArchiveError, BrokerError."""
        async with self._restoring:
            if not (await self._projection.look()).version:
                await self.project()

    async def _show(self) -> bool:
        """Project what SQL has; False where that must wait for the upkeep of a gateway."""
        try:
            await self.project()
        except OpenChatError as exc:
            log.warning("keys_not_projected error=%s", exc)
            return False
        return True
