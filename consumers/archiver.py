"""The archiver: writes every finished response to SQL, and only then lets its log expire.

Order: commit, then the log's time to live, then XACK. Each step may be repeated: rows
are inserted only where there are none, so several archivers may share the work and a
batch that was cut off anywhere is simply done again.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from typing import Protocol

from consumers.backoff import Backoff
from responses.rows import archived_response
from schemas.archived import ArchivedResponse
from schemas.errors import ArchiveError, BadEntry, BrokerError, GroupMissing
from schemas.ids import ResponseId
from schemas.requests import FinishedEntry
from schemas.settings import Settings
from streams.connect import Broker
from streams.finished import FinishedStream
from streams.keys import ARCHIVER_GROUP
from streams.logs import ResponseLogs

log = logging.getLogger(__name__)

_BLOCK_MS = 500
_CLAIM_EVERY_S = 15.0
_CLAIM_IDLE_MS = 30_000
_READS_AT_ONCE = 8


class WritableArchive(Protocol):
    """What the archiver needs of the archive."""

    async def insert(self, batch: Sequence[ArchivedResponse]) -> None: ...


class Archiver:
    """One reader of `oc:finished` in the group `archiver`."""

    def __init__(self, settings: Settings, broker: Broker, archive: WritableArchive, *, name: str) -> None:
        self._settings = settings
        self._archive = archive
        self._consumer = f"{name}-{secrets.token_hex(4)}"
        self._finished = FinishedStream(broker.commands)
        self._blocking = broker.blocking(_BLOCK_MS)
        self._logs = ResponseLogs(
            broker.commands, bus_max_entries=settings.bus_max_entries, partitions=broker.partitions
        )
        self._reads = asyncio.Semaphore(_READS_AT_ONCE)

    async def run(self, stop: asyncio.Event) -> None:
        """Archive until `stop` is set; what is in hand is finished first."""
        backoff = Backoff()
        next_claim = 0.0
        has_group = False
        may_hold = False
        while not stop.is_set():
            try:
                if not has_group:
                    await self._finished.ensure_group(ARCHIVER_GROUP)
                    has_group = True
                if time.monotonic() >= next_claim:
                    await self._archive_entries(await self._claim())
                    next_claim = time.monotonic() + _CLAIM_EVERY_S
                if may_hold:
                    await self._archive_pending()
                    may_hold = False
                await self._archive_entries(await self._read())
                backoff.reset()
            except GroupMissing:
                has_group = False
                await backoff.wait(stop)
            except (BrokerError, ArchiveError) as exc:
                # what was read stays pending, also where its reply was lost
                log.warning("archiving_failed consumer=%s error=%s", self._consumer, exc)
                may_hold = True
                await backoff.wait(stop)

    async def _archive_pending(self) -> None:
        """Everything that this archiver was given and has not acknowledged, once."""
        after = "0"
        while entries := await self._finished.read_pending(
            ARCHIVER_GROUP, self._consumer, self._settings.archive_batch, after
        ):
            await self._archive_entries(entries)
            after = entries[-1][0]

    async def _read(self) -> list[tuple[str, FinishedEntry | None]]:
        return await self._finished.read(
            ARCHIVER_GROUP, self._consumer, self._settings.archive_batch, client=self._blocking, block_ms=_BLOCK_MS
        )

    async def _claim(self) -> list[tuple[str, FinishedEntry | None]]:
        return await self._finished.claim_idle(
            ARCHIVER_GROUP, self._consumer, self._settings.archive_batch, _CLAIM_IDLE_MS
        )

    async def _archive_entries(self, entries: list[tuple[str, FinishedEntry | None]]) -> None:
        if not entries:
            return
        for entry_id in (i for i, entry in entries if entry is None):
            log.error("finished_entry_unreadable entry=%s", entry_id)
        ids = list(dict.fromkeys(entry.id for _, entry in entries if entry is not None))
        rows = await asyncio.gather(*map(self._load, ids))
        unfinished = {response_id for response_id, row in zip(ids, rows, strict=True) if row == "unfinished"}
        batch = [row for row in rows if isinstance(row, ArchivedResponse)]
        if batch:
            await self._archive.insert(batch)
            await self._logs.archived([row.id for row in batch], self._settings.log_ttl_s)
        done = [i for i, entry in entries if entry is None or entry.id not in unfinished]
        if done:
            await self._finished.acknowledge(ARCHIVER_GROUP, done)
        log.debug("archived responses=%d acknowledged=%d", len(batch), len(done))

    async def _load(self, response_id: ResponseId) -> ArchivedResponse | str:
        """The row of a response; "gone" where its log is, "unfinished" where a failover took its end."""
        async with self._reads:
            raw = await self._logs.read_raw(response_id)
        if not raw:
            return "gone"  # archived before and expired
        try:
            return archived_response(response_id, raw)
        except BadEntry as exc:
            log.error("log_not_archived id=%s error=%s", response_id, exc.message)
            return "unfinished"
