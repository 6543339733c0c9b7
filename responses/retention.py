"""Retention: what is older than its tenant wants it kept is deleted for good, in bounded batches. May be repeated.

The broker first, then the rows: a crash between leaves rows that the next sweep finds again. A response counts from
its end, a conversation from its last change, a dead letter from when it was written. What was used stays counted.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from typing import Protocol

import msgspec

from schemas.errors import OpenChatError
from schemas.events import Accepted
from schemas.ids import ResponseId
from streams.dead import DeadLetters, StoredLetter
from streams.keys import FINISHED
from streams.logs import ResponseLogs

log = logging.getLogger(__name__)

_DAY_MS = 86_400_000
_AT_ONCE = 500
"""Rows of a transaction."""
_CONVERSATIONS_AT_ONCE = 50
"""Of a transaction; each may have many items."""
_BATCHES = 200
"""Of a tenant and a sweep; the next sweep goes on."""
_EVERY_S = 300.0


class ExpiringArchive(Protocol):
    """What retention needs of the archive."""

    async def days_of_tenants(self, default: int) -> dict[str, int]: ...

    async def expired_responses(self, tenant: str, before_ms: int, limit: int) -> list[ResponseId]: ...

    async def delete_responses(self, tenant: str, ids: Sequence[ResponseId], *, actor: str, before_ms: int) -> int: ...

    async def delete_conversations(self, tenant: str, *, limit: int, actor: str, before_ms: int) -> int: ...

    async def note_letters(self, tenant: str, count: int, *, actor: str, before_ms: int) -> None: ...


class Expired(msgspec.Struct, kw_only=True):
    """What one sweep deleted."""

    expired_responses: int = 0
    expired_conversations: int = 0
    expired_letters: int = 0


class Retention:
    """Deletes in the name of one process, which the audit names."""

    def __init__(
        self, archive: ExpiringArchive, logs: ResponseLogs, letters: DeadLetters, *, default_days: int, actor: str
    ) -> None:
        self._archive = archive
        self._logs = logs
        self._letters = letters
        self._default_days = default_days
        self._actor = actor

    async def run_sweeps(self, every_s: float = _EVERY_S) -> None:
        """Sweep again and again, until cancelled; not in step with others."""
        while True:
            await asyncio.sleep(every_s * random.uniform(0.7, 1.3))
            try:
                expired = await self.sweep()
            except OpenChatError as exc:
                log.warning("retention_failed error=%s", exc)
                continue
            if any(msgspec.structs.astuple(expired)):
                log.info("expired %s", " ".join(f"{k}={v}" for k, v in msgspec.structs.asdict(expired).items()))

    async def sweep(self) -> Expired:
        """Raises BrokerError, ArchiveError; then the next sweep goes on."""
        expired = Expired()
        now_ms = time.time_ns() // 1_000_000
        days_of = await self._archive.days_of_tenants(self._default_days)
        for tenant, days in days_of.items():
            if days:
                before_ms = now_ms - days * _DAY_MS
                expired.expired_responses += await self._delete_responses(tenant, before_ms)
                expired.expired_conversations += await self._delete_conversations(tenant, before_ms)
        expired.expired_letters = await self._delete_letters(now_ms, days_of)
        return expired

    async def _delete_responses(self, tenant: str, before_ms: int) -> int:
        deleted = 0
        for _ in range(_BATCHES):
            ids = await self._archive.expired_responses(tenant, before_ms, _AT_ONCE)
            if not ids:
                break
            await self._logs.remove_all(ids)
            deleted += await self._archive.delete_responses(tenant, ids, actor=self._actor, before_ms=before_ms)
        return deleted

    async def _delete_conversations(self, tenant: str, before_ms: int) -> int:
        deleted = 0
        for _ in range(_BATCHES):
            count = await self._archive.delete_conversations(
                tenant, limit=_CONVERSATIONS_AT_ONCE, actor=self._actor, before_ms=before_ms
            )
            deleted += count
            if count < _CONVERSATIONS_AT_ONCE:
                break
        return deleted

    async def _delete_letters(self, now_ms: int, days_of: dict[str, int]) -> int:
        """Of any tenant, also of one that has no row anywhere."""
        shortest = min(filter(None, (*days_of.values(), self._default_days)), default=0)
        if not shortest:
            return 0
        counts: dict[str, int] = {}
        async for stored in self._letters.all():  # the oldest first
            age_days = (now_ms - stored.at_ms) / _DAY_MS
            if age_days < shortest:
                break
            tenant = await self._tenant_of(stored)
            days = days_of.get(tenant, self._default_days)
            if days and age_days >= days:
                await self._delete_letter(stored)
                counts[tenant] = counts.get(tenant, 0) + 1
        for tenant, count in counts.items():
            before_ms = now_ms - days_of.get(tenant, self._default_days) * _DAY_MS
            await self._archive.note_letters(tenant, count, actor=self._actor, before_ms=before_ms)
        return sum(counts.values())

    async def _tenant_of(self, stored: StoredLetter) -> str:
        """Empty where nobody can tell: then the default counts."""
        salvaged = stored.salvaged
        if isinstance(salvaged.tenant, str):
            return salvaged.tenant
        if salvaged.response_id is None:
            return ""
        first = await self._logs.first_entry(salvaged.response_id)
        return first.event.tenant if first is not None and isinstance(first.event, Accepted) else ""

    async def _delete_letter(self, stored: StoredLetter) -> None:
        response_id = stored.salvaged.response_id
        if stored.letter.stream == FINISHED and response_id is not None:
            await self._logs.remove_all([response_id])  # it waits there to be archived, without a time to live
        await self._letters.remove(stored.id)
