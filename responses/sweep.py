"""Sweeps: what nobody looks after any more is found in the indexes and ended. All of it may be repeated.

- Never queued: a gateway died between the log and the request entry. Its client was told nothing.
- Overdue: past its deadline, with neither a worker nor a viewer to end it.
- Ended and not archived: the process that ended it died before it told the archiver.
- Lost: in the open index without a log and without a row. A broker that lost data did that.

And the buses are trimmed by age, so that nothing that was deleted stays there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from formats.transcript import status_of
from responses.end import Ender, failure
from schemas.errors import BadEntry, DeadlineExceeded, LogGone, OpenChatError
from schemas.events import TERMINAL, Accepted, Entry, Queued, Terminal
from schemas.ids import ResponseId
from schemas.requests import FinishedEntry
from streams.bus import Bus
from streams.finished import FinishedStream
from streams.keys import ARCHIVER_GROUP
from streams.logs import ResponseLogs
from streams.queue import RequestQueue

log = logging.getLogger(__name__)

_UNQUEUED_MS = 30_000
"""A gateway that lives has queued a request by then, all its retries included."""
_OLD_MS = 60_000
_DEADLINE_GRACE_MS = 10_000
"""Workers and gateways come first."""
_AT_ONCE = 500
_EVERY_S = 30.0


class SweptArchive(Protocol):
    """What sweeping needs of the archive."""

    async def exists(self, response_id: ResponseId) -> bool: ...


class Swept(msgspec.Struct, kw_only=True):
    """What one sweep found."""

    never_queued: int = 0
    overdue: int = 0
    not_archived: int = 0
    lost: int = 0


class Sweeper:
    """One sweep over all partitions."""

    def __init__(
        self,
        logs: ResponseLogs,
        archive: SweptArchive,
        finished: FinishedStream,
        ender: Ender,
        queue_of: Callable[[str], RequestQueue],
        *,
        buses: Sequence[Bus] = (),
        bus_max_age_s: int = 30,
        unqueued_ms: int = _UNQUEUED_MS,
        old_ms: int = _OLD_MS,
    ) -> None:
        self._logs = logs
        self._archive = archive
        self._finished = finished
        self._ender = ender
        self._queue_of = queue_of
        self._buses = buses
        self._bus_max_age_s = bus_max_age_s
        self._unqueued_ms = unqueued_ms
        self._old_ms = old_ms

    async def run_sweeps(self, every_s: float = _EVERY_S) -> None:
        """Sweep again and again, until cancelled; not in step with others."""
        while True:
            await asyncio.sleep(every_s * random.uniform(0.7, 1.3))
            try:
                swept = await self.sweep()
            except OpenChatError as exc:
                log.warning("sweep_failed error=%s", exc)
                continue
            if any(msgspec.structs.astuple(swept)):
                log.warning("swept %s", " ".join(f"{k}={v}" for k, v in msgspec.structs.asdict(swept).items()))

    async def sweep(self) -> Swept:
        """Raises BrokerError, ArchiveError; then the next sweep goes on."""
        now_ms = time.time_ns() // 1_000_000
        swept = Swept()
        for response_id in await self._logs.unqueued_before(now_ms - self._unqueued_ms, _AT_ONCE):
            swept.never_queued += await self._end_unqueued(response_id)
        old = await self._logs.open_before(now_ms - self._old_ms, _AT_ONCE)
        is_lagging = await self._finished.lag(ARCHIVER_GROUP) > 0
        for response_id, last in zip(old, await self._logs.last_entries(old), strict=True):
            if last is None:
                swept.lost += await self._forget_lost(response_id)
            elif not isinstance(last.event, TERMINAL):
                swept.overdue += await self._end_overdue(response_id, now_ms)
            elif not is_lagging:
                swept.not_archived += await self._send_finished(response_id, last.event)
        for bus in self._buses:  # workers do it too, but there may be none
            await bus.trim(self._bus_max_age_s)
        return swept

    async def _end_unqueued(self, response_id: ResponseId) -> bool:
        """Ended if it has no request entry; in every case it needs no second look."""
        is_orphan = False
        with contextlib.suppress(LogGone, BadEntry):
            entries = await self._logs.read(response_id)
            if entries[-1].id.attempt == 0 and not await self._is_queued(entries):
                end = failure("never_queued", "The server failed before the request was queued; send it again.")
                await self._ender.end(response_id, end)
                is_orphan = True
        await self._logs.queued([response_id])
        return is_orphan

    async def _is_queued(self, entries: list[Entry]) -> bool:
        accepted, queued = entries[0].event, entries[1].event
        assert isinstance(accepted, Accepted)
        assert isinstance(queued, Queued)
        return await self._queue_of(accepted.request.model).holds(queued.lane, accepted.id)

    async def _end_overdue(self, response_id: ResponseId, now_ms: int) -> bool:
        first = await self._logs.first_entry(response_id)
        accepted = first.event if first is not None else None
        deadline_ms = accepted.request.deadline_at_ms if isinstance(accepted, Accepted) else 0
        if not deadline_ms or deadline_ms + _DEADLINE_GRACE_MS > now_ms:
            return False
        with contextlib.suppress(LogGone, BadEntry):
            await self._ender.end(response_id, failure(DeadlineExceeded.code, DeadlineExceeded().message))
            return True
        return False

    async def _send_finished(self, response_id: ResponseId, terminal: Terminal) -> bool:
        await self._finished.send(FinishedEntry(id=response_id, status=str(status_of(terminal))))
        return True

    async def _forget_lost(self, response_id: ResponseId) -> bool:
        is_archived = await self._archive.exists(response_id)
        if not is_archived:
            log.error("response_lost id=%s: the broker lost it", response_id)
        await self._logs.forget(response_id)
        return not is_archived
