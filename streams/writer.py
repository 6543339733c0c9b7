"""The flushing writer: what all running responses of a worker produced goes out in one script call.

While a flush is in flight the next one gathers. A wake-up is what costs, not a token,
so under load it gathers a few milliseconds; a first token, a fence and an end never
wait, and an idle writer flushes at once. One flush is numbered and idempotent, so
after an error of the broker the same flush is simply sent again (docs/protocol.md, Marks).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator
from typing import Any

from schemas.errors import BrokerError, Fenced, LogGone
from schemas.events import TERMINAL, Entry, EntryId, Fence, LogEvent, encode_event
from schemas.ids import ResponseId
from schemas.requests import MAX_CHOICES
from streams.clients import Client
from streams.connect import Script
from streams.keys import bus_key, log_key, mark_key

log = logging.getLogger(__name__)

MAX_FLUSH_EVENTS = 512
"""Bounds one script call: Lua's unpack takes about 4,000 pairs."""
MAX_PENDING_EVENTS = 1024
"""Unflushed events of one log from which on its generation waits."""
KEEP_S = 10.0
"""How long entries are kept after the end of a response, to put them back after a failover."""
_MAX_END_EVENTS = 3 * MAX_CHOICES + 8
"""What closes the open items, one of each choice, and the terminal event, with some to spare."""
_MARK_TTL_S = 3600
_MAX_BACKOFF_S = 1.0
_WRITTEN, _FENCED, _GONE = 0, 1, 2
_QUEUED = "0-2"

_Pair = tuple[str, bytes]


class LogAppender:
    """One attempt at one response: gives events their ids and knows what became of them."""

    def __init__(self, writer: Writer, response_id: ResponseId, attempt: int) -> None:
        self.response_id = response_id
        self.attempt = attempt
        self.next_number = 0
        """Number of the next event; set from the log once the fence is in it."""
        self.pending: list[_Pair] = []
        self.prefix: list[_Pair] = []
        """What earlier attempts wrote: a failover that took our fence may have taken some of it as well."""
        self.anchor = _QUEUED
        """The last entry before the first attempt: of a fork, the last that was copied."""
        self.kept: list[_Pair] = []
        self.ended_at: float | None = None
        self.error: Fenced | LogGone | None = None
        self._writer = writer
        self._settled = asyncio.Event()
        self._settled.set()

    async def take(self, t: int, *, released: bool = False) -> None:
        """Write the fence entry. Raises Fenced where another attempt has it, LogGone."""
        self._push(EntryId(self.attempt, 0), self._writer.fence(t, released), urgent=True)
        await self.flushed()

    def taken(self, log: list[Entry]) -> None:
        """What the log held when the fence was in it; events follow behind."""
        self.prefix = [(str(e.id), encode_event(e.event)) for e in log[:-1] if e.id.attempt > 0]
        self.anchor = next((str(e.id) for e in reversed(log) if e.id.attempt == 0), _QUEUED)

    def append(self, event: LogEvent, *, urgent: bool = False) -> None:
        """Queue an event; what goes wrong shows in `error`, `room` and `flushed`."""
        self._push(EntryId(self.attempt, self.next_number), event, urgent=urgent)
        self.next_number += 1

    def _push(self, entry_id: EntryId, event: LogEvent, *, urgent: bool) -> None:
        if self.error is not None:
            return
        self.pending.append((str(entry_id), encode_event(event)))
        if isinstance(event, TERMINAL):
            self.ended_at = asyncio.get_running_loop().time()
        self._settled.clear()
        self._writer.wake(self, urgent=urgent)

    @property
    def last_id(self) -> str:
        """Id of the last event that was appended."""
        return str(EntryId(self.attempt, self.next_number - 1))

    @property
    def is_full(self) -> bool:
        """Too much is unflushed: wait for `room` before more is appended."""
        return len(self.pending) >= MAX_PENDING_EVENTS

    async def room(self) -> None:
        """Wait while too much is unflushed. Raises Fenced or LogGone once the log is lost."""
        if self.is_full:
            await self._settled.wait()
        self.raise_error()

    async def flushed(self) -> None:
        """Wait until everything is in the log. Raises Fenced or LogGone."""
        await self._settled.wait()
        self.raise_error()

    def close(self) -> None:
        """Nothing more will be appended: it is forgotten at once, or after a while where it wrote an end."""
        self._writer.close(self)

    def raise_error(self) -> None:
        if self.error is not None:
            raise self.error

    def put_back(self, status: int) -> None:
        """What became of the entries that were put back."""
        if status != _WRITTEN:
            self._lose(status)

    def _lose(self, status: int) -> None:
        self.pending.clear()
        self.error = Fenced() if status == _FENCED else LogGone()
        self._settled.set()

    def settle(self, pairs: list[_Pair], status: int) -> None:
        """What a flush did to the first `pairs` of this log."""
        if status == _WRITTEN:
            del self.pending[: len(pairs)]
            self.kept.extend(pairs)
        else:
            self._lose(status)
        if not self.pending:
            self._settled.set()


class Writer:
    """All response logs that one worker writes, in one partition."""

    def __init__(
        self,
        client: Client,
        *,
        consumer: str,
        boot: str,
        flush_ms: int,
        bus_max_entries: int,
        partition: int = 0,
        partitions: int = 1,
    ) -> None:
        self._client = client
        self._consumer = consumer
        self._boot = boot
        self._gather_s = flush_ms / 1000
        self._bus_max = bus_max_entries
        self._bus_key = bus_key(partition)
        self._mark_key = mark_key(consumer, partition)
        self._partitions = partitions
        self._append = Script("append")
        self._number = 0
        self._dirty: dict[LogAppender, None] = {}
        self._appenders: dict[LogAppender, None] = {}
        self._work = asyncio.Event()
        self._due = asyncio.Event()
        self._forget_at = 0.0
        self._is_stopping = False

    def open(self, response_id: ResponseId, attempt: int) -> LogAppender:
        """Begin an attempt; `LogAppender.take` writes its fence."""
        appender = LogAppender(self, response_id, attempt)
        self._appenders[appender] = None
        return appender

    def close(self, appender: LogAppender) -> None:
        """As `LogAppender.close`."""
        if appender.error is not None or appender.ended_at is None:
            self._appenders.pop(appender, None)

    def fence(self, t: int, released: bool) -> Fence:
        """A fence entry in the name of this worker."""
        return Fence(t=t, consumer=self._consumer, boot=self._boot, released=released)

    def wake(self, appender: LogAppender, *, urgent: bool) -> None:
        """There is something to flush."""
        self._dirty[appender] = None
        self._work.set()
        if urgent:
            self._due.set()

    def stop(self) -> None:
        """Let `run_flushes` end after the flush that is under way, or at once where the broker is away."""
        self._is_stopping = True
        self._work.set()
        self._due.set()

    async def run_flushes(self) -> None:
        """Flush until `stop`."""
        loop = asyncio.get_running_loop()
        gather_until = 0.0
        while True:
            await self._work.wait()
            if self._is_stopping:
                return
            if gather_until > loop.time() and not self._due.is_set():
                timer = loop.call_at(gather_until, self._due.set)
                await self._due.wait()
                timer.cancel()
            self._work.clear()
            self._due.clear()
            gather_until = loop.time() + self._gather_s
            try:
                await self._flush_dirty()
            except BrokerError:  # only when stopping
                return
            self._forget_ended(loop.time())

    async def _flush_dirty(self) -> None:
        dirty, self._dirty = self._dirty, {}
        for batch in _batches([(appender, list(appender.pending)) for appender in dirty]):
            await self._flush(batch)

    async def _flush(self, batch: list[tuple[LogAppender, list[_Pair]]]) -> None:
        """One numbered flush, sent until the broker has taken it."""
        while True:
            reply = await self._send(batch, expected=str(self._number))
            if reply[0] == b"ok":
                break
            log.warning("mark_lost consumer=%s expected=%d found=%d", self._consumer, self._number, reply[1])
            await self._put_back()
            batch = [(appender, pairs) for appender, pairs in batch if appender.error is None]
        self._number += 1
        for (appender, pairs), status in zip(batch, reply[1:], strict=True):
            appender.settle(pairs, status)

    async def _put_back(self) -> None:
        """Write again what a failover lost: under the same ids, and only where it follows on.

        A log that went on without it is another's now.
        """
        lost = [(appender, appender.prefix + appender.kept) for appender in self._appenders if appender.kept]
        anchors = {appender: appender.anchor for appender, _ in lost}
        for batch in _batches(lost) or [[]]:
            batch = [(appender, pairs) for appender, pairs in batch if appender.error is None]
            reply = await self._send([(a, [(anchors[a], b""), *pairs]) for a, pairs in batch], expected="*")
            self._number += 1
            for (appender, pairs), status in zip(batch, reply[1:], strict=True):
                anchors[appender] = pairs[-1][0]
                appender.put_back(status)

    async def _send(self, batch: list[tuple[LogAppender, list[_Pair]]], expected: str) -> list[Any]:
        keys = [self._bus_key, self._mark_key]
        args: list[Any] = [self._number + 1, expected, self._boot, self._bus_max, _MARK_TTL_S]
        for appender, pairs in batch:
            keys.append(log_key(appender.response_id, self._partitions))
            seal = appender.ended_at is not None and pairs[-1][0] == appender.last_id
            args += [appender.response_id, str(appender.attempt), "1" if seal else "0", len(pairs)]
            for pair in pairs:
                args += pair
        backoff_s = 0.02
        while True:
            try:
                reply: list[Any] = await self._append.run(self._client, keys, args)
            except BrokerError as exc:
                if self._is_stopping:
                    raise
                log.warning("flush_failed consumer=%s number=%d error=%s", self._consumer, self._number + 1, exc)
                await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
                backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)
            else:
                return reply

    def _forget_ended(self, now: float) -> None:
        if now < self._forget_at:
            return
        self._forget_at = now + 1.0
        for appender in [a for a in self._appenders if a.ended_at is not None and a.ended_at + KEEP_S < now]:
            del self._appenders[appender]


def _batches(logs: list[tuple[LogAppender, list[_Pair]]]) -> list[list[tuple[LogAppender, list[_Pair]]]]:
    """Split into script calls of at most MAX_FLUSH_EVENTS events, each log's events in order."""
    batches: list[list[tuple[LogAppender, list[_Pair]]]] = []
    room = 0
    for appender, pairs in logs:
        for piece in _pieces(pairs, MAX_FLUSH_EVENTS):
            if not batches or len(piece) > room:
                batches.append([])
                room = MAX_FLUSH_EVENTS
            batches[-1].append((appender, piece))
            room -= len(piece)
    return batches


def _pieces(pairs: list[_Pair], size: int) -> Iterator[list[_Pair]]:
    """Pieces of about `size`; the last one is never shorter than an end (closing events and terminal),
    so that an end is always whole in one script call."""
    start = 0
    while len(pairs) - start > size + _MAX_END_EVENTS:
        yield pairs[start : start + size]
        start += size
    if start < len(pairs):
        yield pairs[start:]
