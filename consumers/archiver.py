"""The archiver: writes every finished response to SQL, and only then lets its log expire.

Order: commit, then the log's time to live, then XACK. Each step may be repeated: rows
are inserted only where there are none, so several archivers may share the work and a
batch that was cut off anywhere is simply done again.

A row that the archive refuses is found by halving the batch, and the others go in. Where it is the row's
own fault (see `consumers/refusals.py`) it becomes a dead letter; its log stays, without a time to live.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Collection, Sequence
from typing import Protocol

import msgspec

from consumers.backoff import Backoff
from consumers.metrics import ARCHIVE_FAILURES, ARCHIVE_LAG, ARCHIVED
from consumers.refusals import Refusals
from consumers.turn_order import TurnOrder
from responses.rows import archived_response
from schemas.archived import ArchivedResponse
from schemas.errors import ArchiveError, BadEntry, BrokerError, GroupMissing, LogGone, LogUnfinished, RowRefused
from schemas.ids import ResponseId
from schemas.models import Models
from schemas.requests import DeadLetter, FinishedEntry
from schemas.settings import Settings
from streams.connect import Broker
from streams.dead import DeadLetters
from streams.finished import FinishedStream
from streams.keys import ARCHIVER_GROUP, FINISHED
from streams.logs import ResponseLogs, is_unstored
from streams.queue import RequestQueue
from streams.turns import ConversationTurns

log = logging.getLogger(__name__)

NOT_ARCHIVABLE = "not_archivable"
"""Reason of the letter."""
_BLOCK_MS = 500
_CLAIM_EVERY_S = 15.0
_CLAIM_IDLE_MS = 30_000
_LAG_EVERY_S = 1.0
_READS_AT_ONCE = 8
_ENDED_BY_OTHERS = ("cancelled", "failed")
"""How a response may end without its worker."""
_CLOCKS_DIFFER_MS = 60_000
"""A gateway's and the broker's: by no more."""
_LETTERS_LOOKED_AT = 100

Held = list[tuple[str, FinishedEntry | None]]
"""Entries of `oc:finished` with their ids; None stands for one that does not parse."""


class WritableArchive(Protocol):
    """What the archiver needs of the archive."""

    async def insert(self, batch: Sequence[ArchivedResponse]) -> None: ...


class Archiver:
    """One reader of `oc:finished` in the group `archiver`."""

    def __init__(
        self, settings: Settings, broker: Broker, archive: WritableArchive, *, name: str, models: Models | None = None
    ) -> None:
        """`models` have the prices."""
        self._settings = settings
        self._archive = archive
        self._models = models
        self._consumer = f"{name}-{secrets.token_hex(4)}"
        self._client = broker.commands
        self._finished = FinishedStream(broker.commands)
        self._blocking = broker.blocking(_BLOCK_MS)
        self._logs = ResponseLogs(
            broker.commands, bus_max_entries=settings.bus_max_entries, partitions=broker.partitions
        )
        self._letters = DeadLetters(broker.commands)
        self._turns = TurnOrder(ConversationTurns(broker.commands), self._load)
        self._refusals = Refusals()
        self._reads = asyncio.Semaphore(_READS_AT_ONCE)

    async def run(self, stop: asyncio.Event) -> None:
        """Archive until `stop` is set; what is in hand is finished first."""
        watch = asyncio.create_task(self._run_lag())
        try:
            await self._run_batches(stop)
        finally:
            watch.cancel()
            await asyncio.wait([watch])

    async def _run_lag(self) -> None:
        while True:
            with contextlib.suppress(BrokerError):
                ARCHIVE_LAG.set(await self._finished.lag(ARCHIVER_GROUP))
            await asyncio.sleep(_LAG_EVERY_S)

    async def _run_batches(self, stop: asyncio.Event) -> None:
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
                await self._archive_entries(await self._read())
                may_hold = len(self._refusals) > 0
                if may_hold:
                    await backoff.wait(stop)
                else:
                    backoff.reset()
            except GroupMissing:
                has_group = False
                await backoff.wait(stop)
            except (BrokerError, ArchiveError) as exc:
                # what was read stays pending, also where its reply was lost
                log.warning("archiving_failed consumer=%s error=%s", self._consumer, exc)
                ARCHIVE_FAILURES.inc()
                may_hold = True
                await backoff.wait(stop)

    async def _archive_pending(self) -> None:
        """Everything that this archiver was given and has not acknowledged, once."""
        after = "0"
        held: set[ResponseId] = set()
        while entries := await self._finished.read_pending(
            ARCHIVER_GROUP, self._consumer, self._settings.archive_batch, after
        ):
            await self._archive_entries(entries)
            after = entries[-1][0]
            held.update(entry.id for _, entry in entries if entry is not None)
        self._refusals.forget_all_but(held)

    async def _read(self) -> Held:
        """What is new; no more than can be held while the archive refuses."""
        room = self._settings.archive_batch - len(self._refusals)
        if room <= 0:
            return []
        return await self._finished.read(
            ARCHIVER_GROUP, self._consumer, room, client=self._blocking, block_ms=_BLOCK_MS
        )

    async def _claim(self) -> Held:
        return await self._finished.claim_idle(
            ARCHIVER_GROUP, self._consumer, self._settings.archive_batch, _CLAIM_IDLE_MS
        )

    async def _archive_entries(self, held: Held) -> None:
        """Archive what can be, acknowledge what is settled; the rest stays pending."""
        if not held:
            return
        entries = {entry_id: entry for entry_id, entry in held if entry is not None}
        for entry_id in (i for i, entry in held if entry is None):
            log.error("finished_entry_unreadable entry=%s", entry_id)
        ids = list(dict.fromkeys(entry.id for entry in entries.values()))
        rows = dict(zip(ids, await asyncio.gather(*map(self._load, ids)), strict=True))
        unfinished = {response_id for response_id, row in rows.items() if isinstance(row, LogUnfinished)}
        refused = {response_id: row.message for response_id, row in rows.items() if isinstance(row, BadEntry)}
        batch = await self._turns.in_order([row for row in rows.values() if isinstance(row, ArchivedResponse)])
        refused |= await self._insert(batch)
        taken = [row for row in batch if row.id not in refused]
        await self._let_expire(taken)
        await self._turns.leave(taken)
        guilty = await self._bury(refused, entries, took_others=bool(taken))
        await self._let_unstored_expire(guilty)
        await self._forget_requests([row for row in batch if not row.is_stored and row.status in _ENDED_BY_OTHERS])
        left = unfinished | (refused.keys() - guilty)
        done = [entry_id for entry_id, entry in held if entry is None or entry.id not in left]
        if done:
            await self._finished.acknowledge(ARCHIVER_GROUP, done)
        log.debug("archived responses=%d refused=%d acknowledged=%d", len(taken), len(refused), len(done))

    async def _load(self, response_id: ResponseId) -> ArchivedResponse | LogGone | LogUnfinished | BadEntry:
        """The row of a response, or why there is none: its log is gone (archived before, and expired), a
        failover took its end (somebody will put it back), or it does not parse."""
        async with self._reads:
            raw = await self._logs.read_raw(response_id)
        if not raw:
            return LogGone()
        try:
            return archived_response(response_id, raw, self._models)
        except LogUnfinished as exc:
            log.warning("log_unfinished id=%s", response_id)
            return exc
        except BadEntry as exc:
            return exc

    async def _insert(self, batch: list[ArchivedResponse]) -> dict[ResponseId, str]:
        """Insert what the archive takes; what it refuses, and why. Raises ArchiveError where it is away."""
        if not batch:
            return {}
        try:
            await self._archive.insert(batch)
        except RowRefused as exc:
            if len(batch) == 1:
                return {batch[0].id: exc.message}
            half = len(batch) // 2
            return await self._insert(batch[:half]) | await self._insert(batch[half:])
        return {}

    async def _let_expire(self, taken: list[ArchivedResponse]) -> None:
        if taken:
            ARCHIVED.inc(len(taken))
            self._refusals.taken(row.id for row in taken)
            await self._logs.archived({row.id: self._ttl_s(row) for row in taken})

    def _ttl_s(self, row: ArchivedResponse) -> int:
        """Of what is not stored the log is all there is, and its time runs from the end on."""
        if row.is_stored:
            return self._settings.log_ttl_s
        return max(1, round(row.ended_at_ms / 1000 + self._settings.unstored_ttl_s - time.time()))

    async def _forget_requests(self, ended: list[ArchivedResponse]) -> None:
        """Of unstored responses that others than a worker may have ended: their requests would wait for one.

        The queue is read from a little before they were accepted on, once for all of a model.
        """
        for model in {row.model for row in ended}:
            rows = [row for row in ended if row.model == model]
            since_ms = min(row.accepted_at_ms for row in rows) - _CLOCKS_DIFFER_MS
            await RequestQueue(self._client, model).remove(*(row.id for row in rows), since_ms=since_ms)

    async def _let_unstored_expire(self, buried: Collection[ResponseId]) -> None:
        """The log of a row that can not be written waits for somebody to mend it, but not what may not be kept."""
        for response_id in buried:
            if is_unstored(await self._logs.read_raw(response_id)):
                await self._logs.archived({response_id: self._settings.unstored_ttl_s})

    async def _bury(
        self, refused: dict[ResponseId, str], entries: dict[str, FinishedEntry], *, took_others: bool
    ) -> set[ResponseId]:
        """Make dead letters of the refused that are guilty; those with a letter, new or old, are returned."""
        if not refused:
            return set()
        letters = await self._standing_letters(refused)
        again = {entry.id: letters[entry.id] for entry in entries.values() if letters.get(entry.id) == entry.letter}
        known = letters.keys() - again.keys()  # their verdict stands: a sweep has sent them once more
        guilty = set(self._refusals.refused(refused.keys() - known, took_others=took_others))
        for response_id in refused.keys() - guilty - known:
            log.error("row_refused_for_now id=%s error=%s", response_id, refused[response_id])
        for entry_id, entry in {entry.id: (i, entry) for i, entry in entries.items()}.values():
            if entry.id in guilty:
                await self._bury_one(entry_id, entry, refused[entry.id])
                if entry.id in again:
                    await self._letters.remove(again[entry.id])
        self._refusals.forget(guilty | known)
        return guilty | known

    async def _standing_letters(self, response_ids: Collection[ResponseId]) -> dict[ResponseId, str]:
        """The newest letter of each of these, where there is one."""
        found: dict[ResponseId, str] = {}
        for stored in await self._letters.newest(_LETTERS_LOOKED_AT):
            response_id = stored.salvaged.response_id
            if stored.letter.reason == NOT_ARCHIVABLE and response_id is not None and response_id in response_ids:
                found.setdefault(response_id, stored.id)
        return found

    async def _bury_one(self, entry_id: str, entry: FinishedEntry, error: str) -> None:
        log.error("dead_letter entry=%s id=%s reason=%s error=%s", entry_id, entry.id, NOT_ARCHIVABLE, error)
        body = msgspec.json.encode(FinishedEntry(id=entry.id, status=entry.status)).decode()
        letter = DeadLetter(stream=FINISHED, entry_id=entry_id, reason=NOT_ARCHIVABLE, error=error, body=body)
        await self._letters.put(letter)
