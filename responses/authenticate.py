"""Who asks, from the `Authorization` header: by the settings, and by the broker's projection of the managed keys.

SQL is not asked, so it may be away. What the broker said holds for half a second, so a revoked key opens
nothing a second later. A gateway that cannot tell whether keys are required says so (503); it is never open by mistake.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable

import msgspec

from responses.keys import KEY_PREFIX, ApiKeys, key_digest
from schemas.accounts import DEFAULT_TENANT, SCOPES, Principal, ProjectedKey
from schemas.errors import AuthenticationError, ProjectionLost
from streams.projection import KeyProjection
from streams.retry import retry_harmless

_HOLDS_S = 0.5
_MAX_KNOWN = 10_000
"""Keys, right and wrong, that are remembered at once."""


class _Known(msgspec.Struct, frozen=True):
    key: ProjectedKey | None
    until_s: float


class Authenticator:
    """The keys as one gateway sees them."""

    def __init__(
        self,
        keys: ApiKeys,
        projection: KeyProjection,
        restore: Callable[[], Awaitable[object]],
        *,
        is_required: bool = False,
    ) -> None:
        """`restore` makes the projection anew from SQL. `is_required`: also where no key exists."""
        self._keys = keys
        self._projection = projection
        self._restore = restore
        self._known: dict[str, _Known] = {}
        self._used: dict[str, int] = {}
        self._is_required: bool | None = True if is_required or not keys.is_empty else None

    def note_required(self, is_required: bool) -> None:
        """What the projection says. Once keys are required they stay so, even if the last one is revoked."""
        self._is_required = self._is_required or is_required

    def take_used(self) -> dict[str, int]:
        """Key → when it was used last, unix ms; of those used since the last call."""
        used, self._used = self._used, {}
        return used

    def put_back_used(self, used: dict[str, int]) -> None:
        """What could not be written; later uses win."""
        self._used = used | self._used

    async def principal(self, authorization: str | None) -> Principal:
        """Raises AuthenticationError; BrokerError, StreamError or ArchiveError where nobody can tell."""
        key = _bearer(authorization)
        if not await self._requires_keys():
            if not key.startswith(KEY_PREFIX) or await self._find(key_digest(key)) is None:
                return Principal(tenant=DEFAULT_TENANT)
            self.note_required(True)  # made since the last look: its tenant must not be mistaken for the default
        if not key:
            raise AuthenticationError
        digest = key_digest(key)
        tenant = self._keys.tenant_of(digest)
        if tenant is not None:
            return Principal(tenant=tenant)
        return self._checked(await self._find(digest))

    async def _requires_keys(self) -> bool:
        if self._is_required is None:
            seen = await retry_harmless(self._projection.look)
            if not seen.version:
                await self._restore()
                seen = await retry_harmless(self._projection.look)
            if not seen.version:
                raise ProjectionLost
            self.note_required(seen.is_required)
        return bool(self._is_required)

    async def _find(self, digest: str) -> ProjectedKey | None:
        known = self._known.pop(digest, None)
        if known is None or known.until_s <= time.monotonic():
            asked_s = time.monotonic()
            known = _Known(await self._look_up(digest), asked_s + _HOLDS_S)
        self._known[digest] = known  # the one that was used last is the last to go
        if len(self._known) > _MAX_KNOWN:
            del self._known[next(iter(self._known))]
        return known.key

    async def _look_up(self, digest: str) -> ProjectedKey | None:
        try:
            return await retry_harmless(lambda: self._projection.find(digest))
        except ProjectionLost:
            await self._restore()
            return await retry_harmless(lambda: self._projection.find(digest))

    def _checked(self, key: ProjectedKey | None) -> Principal:
        if key is None:
            raise AuthenticationError("The API key is wrong, or it was revoked.")
        now_ms = time.time_ns() // 1_000_000
        if key.expires_at_ms and key.expires_at_ms <= now_ms:
            raise AuthenticationError("The API key has expired.")
        self._used[key.id] = now_ms
        scopes = tuple(scope for scope in SCOPES if scope in key.scopes)
        return Principal(tenant=key.tenant, key_id=key.id, scopes=scopes, limits=key.limits)


class AdminKeys:
    """Who may administer: SHA-256 hashes from the settings."""

    def __init__(self, digests: list[str]) -> None:
        self._digests = digests

    def actor(self, authorization: str | None) -> str:
        """The name under which the audit knows this administrator. Raises AuthenticationError."""
        key = _bearer(authorization)
        digest = key_digest(key)
        found = [known for known in self._digests if hmac.compare_digest(known, digest)]  # no early exit
        if not key or not found:
            raise AuthenticationError("This needs an admin key, one of OPENCHAT_ADMIN_KEYS.")
        return f"admin:{digest[:8]}"


def _bearer(authorization: str | None) -> str:
    """The key of an `Authorization` header; empty where there is none."""
    scheme, _, key = (authorization or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""
