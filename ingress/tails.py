"""Tails: a gateway's copies of the live logs that it is showing.

One reader takes the bus and appends what belongs to a tail; a viewer is an index into a
tail. The bus only makes it fast. The log is the truth, and is read from a tail's cursor
when it is opened, when a sequence does not follow on, after a reconnect, and when the
tail has been silent for 1, 2, 4 … 15 seconds and the log has gone on. Where the log has less than
what was shown, the broker lost it, and it is put back (`responses.restore`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time

from ingress import metrics
from responses.end import Ender, failure
from responses.read import ResponseReader
from responses.restore import Restorer
from schemas.errors import (
    ArchiveError,
    BadEntry,
    BrokerError,
    DeadlineExceeded,
    LogGone,
    OpenChatError,
    ResponseNotFound,
    StreamDiverged,
)
from schemas.events import TERMINAL, Accepted, Entry, EntryId, Fence
from schemas.ids import ResponseId
from streams.bus import Bus, BusEntry
from streams.connect import Broker
from streams.keys import partition_of
from streams.logs import ResponseLogs, decode_entry

log = logging.getLogger(__name__)

_READ_ENTRIES = 64
_BLOCK_MS = 1000
_CHECK_EVERY_S = 0.25
_FIRST_SILENCE_S = 1.0
_LONGEST_SILENCE_S = 15.0
_CHECKS_AT_ONCE = 500
_DEADLINE_GRACE_MS = 2000
"""The worker ends a late response itself; a gateway does where there is none."""


class Tail:
    """The entries of one response, by sequence, and those who wait for more."""

    def __init__(self, response_id: ResponseId, entries: list[Entry]) -> None:
        self.id = response_id
        self.entries: list[Entry] = []
        self.fences: list[Entry] = []
        self.last_id = EntryId(0, 0)
        self.error: OpenChatError | None = None
        self.is_accepted_here = False
        self.is_accepted = True
        """False while this gateway is still writing the first entries: until then the log may miss them."""
        self.holders = 0
        """Those who use this tail, for however short; the last one to leave drops it."""
        self.viewers = 0
        """Clients that wait for this response; kept by `ingress.viewers`."""
        self.is_repairing = False
        self.has_missed = False
        """Something came that did not follow on."""
        self.has_shown_text = False
        self._changed = asyncio.Event()
        self.heard()
        self.add(entries)

    @property
    def is_complete(self) -> bool:
        """The last entry is terminal: nothing more will come."""
        return bool(self.entries) and isinstance(self.entries[-1].event, TERMINAL)

    @property
    def is_over(self) -> bool:
        return self.error is not None or self.is_complete

    @property
    def accepted(self) -> Accepted:
        first = self.entries[0].event
        assert isinstance(first, Accepted)  # the first event of every log
        return first

    def add(self, entries: list[Entry]) -> bool:
        """Append what follows on; False where there is a hole before an entry."""
        for entry in entries:
            if entry.id.is_fence:
                self._add_fence(entry)
                continue
            sequence = entry.id.sequence
            if sequence > len(self.entries):
                return False
            if sequence < len(self.entries):
                if self.entries[sequence] != entry:
                    self.diverge()
                    return True
                continue
            self.entries.append(entry)
            self.last_id = max(self.last_id, entry.id)
        return True

    def _add_fence(self, fence: Entry) -> None:
        if fence.id > self.last_id:
            self.fences.append(fence)
            self.last_id = fence.id
        elif any(known.id == fence.id and _boot_of(known) != _boot_of(fence) for known in self.fences):
            self.diverge()  # a failover took the one that we know, and another attempt has its number

    def diverge(self) -> None:
        """The log is not what was shown, and the log wins."""
        self.fail(StreamDiverged("The broker lost a part of this stream that was already shown."))

    @property
    def log(self) -> list[Entry]:
        """The whole log as far as it was shown, fences included."""
        return sorted(self.entries + self.fences, key=lambda entry: entry.id)

    def fail(self, error: OpenChatError) -> None:
        """End every viewer's stream with an error."""
        log.warning("tail_failed id=%s code=%s", self.id, error.code)
        metrics.TAILS_FAILED.labels(error.code).inc()
        self.error = error
        self.wake()

    def wake(self) -> None:
        """Let the viewers look."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def wait_beyond(self, length: int) -> None:
        """Wait for more than `length` entries, the end, or another reason to look; then it may be called again."""
        if len(self.entries) <= length and not self.is_over:
            await self._changed.wait()

    async def wait_awake(self, limit_s: float) -> None:
        """Wait until something is to be seen, but no longer than this."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._changed.wait()

    def heard(self) -> None:
        """Something came: the next check is a second away."""
        self._silence_s = _FIRST_SILENCE_S
        self._check_at = time.monotonic() + _FIRST_SILENCE_S

    def is_silent(self, now: float) -> bool:
        """Due for a look at its log; the next one is later."""
        if self.is_over or now < self._check_at:
            return False
        self._silence_s = min(self._silence_s * 2, _LONGEST_SILENCE_S)
        self._check_at = now + self._silence_s
        return True


class Tails:
    """All tails of one gateway, and the one reader of each bus."""

    def __init__(
        self, broker: Broker, logs: ResponseLogs, reader: ResponseReader, ender: Ender, restorer: Restorer
    ) -> None:
        self._buses = [Bus(broker.commands, partition) for partition in range(broker.partitions)]
        self._blocking = broker.blocking(_BLOCK_MS, readers=broker.partitions)
        self._logs = logs
        self._reader = reader
        self._ender = ender
        self._restorer = restorer
        self._tails: dict[ResponseId, Tail] = {}
        self._repairs: set[asyncio.Task[None]] = set()

    def adopt(self, response_id: ResponseId, entries: list[Entry]) -> Tail:
        """A tail of a response that this gateway is about to accept; `release` it in the end."""
        tail = self._tails[response_id] = Tail(response_id, entries)
        tail.is_accepted_here = True
        tail.holders += 1
        return tail

    async def open(self, response_id: ResponseId) -> Tail:
        """A tail of any response; `release` it in the end.

        Raises ResponseNotFound, BrokerError, ArchiveError.
        """
        tail = self._tails.get(response_id)
        if tail is None:
            # known before its log is read, so that what comes meanwhile is not missed
            tail = self._tails[response_id] = Tail(response_id, [])
        tail.holders += 1
        try:
            if not tail.entries:
                tail.add(await self._reader.read(response_id))
        except BaseException:
            self.release(tail)
            raise
        if tail.has_missed:
            self._repair(tail)
        return tail

    def release(self, tail: Tail) -> None:
        """One holder less; without any the tail is dropped."""
        tail.holders -= 1
        if tail.holders == 0 and self._tails.get(tail.id) is tail:
            del self._tails[tail.id]

    def viewed(self) -> list[ResponseId]:
        """What is not over, is viewed here, and would be ended without a viewer."""
        tails = self._tails.values()
        return [t.id for t in tails if t.viewers and not t.is_over and t.accepted.request.needs_viewer]

    def is_viewed(self, response_id: ResponseId) -> bool:
        """A client here waits for this response."""
        tail = self._tails.get(response_id)
        return tail is not None and tail.viewers > 0

    def wake_all(self) -> None:
        """Let every viewer look: something else than an entry is to be seen."""
        for tail in self._tails.values():
            tail.wake()

    async def refresh(self, tail: Tail) -> None:
        """Bring a tail up to its log now. Raises BrokerError, ArchiveError, ResponseNotFound."""
        if not tail.is_over:
            tail.add(await self._entries_from(tail, tail.entries[-1].id))
            tail.wake()

    async def run_buses(self) -> None:
        """Read the bus of every partition until cancelled."""
        async with asyncio.TaskGroup() as group:
            for partition, bus in enumerate(self._buses):
                group.create_task(self._follow(partition, bus))

    async def _follow(self, partition: int, bus: Bus) -> None:
        position: str | None = None
        pause_s = 0.05
        while True:
            try:
                if position is None:
                    position = await bus.end()
                    self._repair_all(partition)
                position, entries = await bus.read(position, _READ_ENTRIES, client=self._blocking, block_ms=_BLOCK_MS)
                self._take_in(entries)
                pause_s = 0.05
            except BrokerError as exc:
                log.warning("bus_lost partition=%d error=%s", partition, exc)
                position = None
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(pause_s * 2, 1.0)

    def _take_in(self, entries: list[BusEntry]) -> None:
        touched: dict[Tail, bool] = {}
        for response_id, entry_id, raw in entries:
            tail = self._tails.get(response_id)
            if tail is None or tail.error is not None:
                continue
            try:
                follows = tail.add([decode_entry(entry_id, raw)])
            except BadEntry:
                follows = False
            touched[tail] = touched.get(tail, True) and follows
        for tail, follows in touched.items():
            tail.heard()
            tail.wake()
            if not follows:
                tail.has_missed = True
                if tail.entries:
                    self._repair(tail)

    def _repair_all(self, partition: int) -> None:
        for tail in self._tails.values():
            is_here = partition_of(tail.id, len(self._buses)) == partition
            if is_here and tail.entries and not tail.is_over:
                self._repair(tail)

    def _repair(self, tail: Tail) -> None:
        if tail.is_repairing or not tail.is_accepted:
            return
        tail.is_repairing = True
        task = asyncio.create_task(self._read_missing(tail))
        self._repairs.add(task)  # a task that nobody holds is collected while it waits
        task.add_done_callback(self._repairs.discard)

    async def _read_missing(self, tail: Tail) -> None:
        metrics.TAIL_REPAIRS.inc()
        try:
            shown = tail.entries[-1]
            found = await self._entries_from(tail, shown.id)
            if not found:
                await self._restore(tail)
            elif found[0].id > shown.id:
                tail.diverge()
            else:
                tail.add(found)
        except (BrokerError, ArchiveError) as exc:
            log.warning("tail_not_repaired id=%s error=%s", tail.id, exc)  # the next check tries again
        except OpenChatError as exc:
            tail.fail(exc)
        finally:
            tail.is_repairing = False
            tail.wake()

    async def _entries_from(self, tail: Tail, shown: EntryId) -> list[Entry]:
        """What the log holds from the entry that was shown last on, itself too: it may have become another."""
        try:
            return await self._logs.read(tail.id, from_=shown)
        except LogGone:
            try:
                return await self._reader.read_archived(tail.id)
            except ResponseNotFound:
                if await self._restore(tail):
                    return []
                raise

    async def _restore(self, tail: Tail) -> bool:
        """Put back what the broker lost of what was shown."""
        count = await self._restorer.restore(tail.log)
        metrics.PUT_BACK.inc(count)
        return count > 0

    async def run_checks(self) -> None:
        """Look after silent and late tails until cancelled."""
        while True:
            await asyncio.sleep(_CHECK_EVERY_S)
            try:
                await self._check_silent()
                await self._end_late()
            except OpenChatError as exc:
                log.warning("tails_not_checked error=%s", exc)

    async def _check_silent(self) -> None:
        now = time.monotonic()
        silent = [tail for tail in self._tails.values() if tail.entries and tail.is_silent(now)][:_CHECKS_AT_ONCE]
        if not silent:
            return
        for tail, last_id in zip(silent, await self._logs.last_ids([t.id for t in silent]), strict=True):
            if last_id != tail.last_id:
                self._repair(tail)

    async def _end_late(self) -> None:
        limit_ms = time.time_ns() // 1_000_000 - _DEADLINE_GRACE_MS
        late = [t for t in self._tails.values() if t.entries and not t.is_over and 0 < _deadline_ms(t) < limit_ms]
        for tail in late:
            error = DeadlineExceeded()
            with contextlib.suppress(LogGone):
                await self._ender.end(tail.id, failure(error.code, error.message))
            self._repair(tail)


def _boot_of(entry: Entry) -> str:
    """Who wrote a fence. The rest of it may differ: who has lost the answer takes again, at another time."""
    return entry.event.boot if isinstance(entry.event, Fence) else ""


def _deadline_ms(tail: Tail) -> int:
    return tail.accepted.request.deadline_at_ms
