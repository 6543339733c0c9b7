"""Who touches a response log: workers, processes that end responses, and readers.

Their code is the product's. Only the way to the broker is ours: a script call stops before the
broker runs it and again before its answer arrives, so that a test decides what happens in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import redis.exceptions

from formats.structure import closing_events
from formats.transcript import Transcript, transcript_of
from ingress.tails import Tail
from responses.end import Ender, cancellation
from schemas.errors import BrokerError, Fenced, LogGone, ResponseNotFound
from schemas.events import Completed, EntryId, InProgress, ItemAdded, LogEvent, PartAdded, Text, Usage
from schemas.ids import ResponseId
from streams.bus import Bus
from streams.connect import Broker
from streams.finished import FinishedStream
from streams.logs import ResponseLogs, decode_entry
from streams.writer import LogAppender
from streams.writers import Writers

BUS_ENTRIES = 100_000
"""Nothing is trimmed: what is on the bus is compared with the logs."""


class Call:
    """A script call on its way: sent, perhaps run, not yet answered."""

    def __init__(self, send: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        self._send = send
        self._args = args
        self._result: Any = None
        self._answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.is_run = False
        self.epoch = 0
        """Failovers before the one broker that ran it."""

    async def run(self, epoch: int) -> None:
        """The broker runs it. None of our scripts may fail, so an error is the test's."""
        self._result = await self._send(*self._args)
        self.is_run = True
        self.epoch = epoch

    async def answered(self) -> Any:
        return await self._answer

    def answer(self) -> None:
        self._answer.set_result(self._result)

    def lose(self) -> None:
        """The caller learns nothing, whether it was run or not."""
        self._answer.set_exception(redis.exceptions.ConnectionError("the test cut the connection"))


class Wire:
    """A client whose script calls wait to be run and to be answered."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.call: Call | None = None
        self.losses = 0
        """In a row."""
        self.answered_epoch = 0
        """Epoch of the broker in which the last answered call was run."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def evalsha(self, *args: Any) -> Any:
        assert self.call is None, "a writer has one flush in flight"
        self.call = Call(self._client.evalsha, args)
        return await self.call.answered()


class Attempt:
    """One attempt of a worker, in the steps of `consumers.generation`."""

    def __init__(self, writers: Writers, logs: ResponseLogs, response_id: ResponseId, number: int) -> None:
        self._writers = writers
        self._logs = logs
        self.response_id = response_id
        self.appenders = [writers.open(response_id, number)]
        self.transcript: Transcript | None = None
        """The log and what was appended to it; None until the fence is in the log."""
        self.is_taking = True
        self.is_over = False
        """Nothing more will be appended."""
        self._task: asyncio.Task[None] | None = None
        self._start(self._take())

    @property
    def appender(self) -> LogAppender:
        return self.appenders[0]

    @property
    def owns(self) -> bool:
        """It believes that it may write."""
        return self.transcript is not None and not self.is_over

    @property
    def is_done(self) -> bool:
        return self.is_over and self._task is not None and self._task.done()

    @property
    def is_choosing(self) -> bool:
        """It has chosen a number, and its fence is on its way."""
        return self.is_taking or len(self.appenders) > 1

    @property
    def is_at_rest(self) -> bool:
        """Nothing happens before a call is answered."""
        if self._task is None or not self._task.done():
            return self._task is not None and bool(self.appenders[-1].pending)
        self._task.result()
        return True

    def _start(self, steps: Coroutine[Any, Any, None]) -> None:
        self._task = asyncio.create_task(steps)

    async def _take(self) -> None:
        try:
            await self.appender.take(0)
            entries = await self._logs.read(self.response_id)
            transcript = transcript_of(entries)
        except (Fenced, LogGone):
            return self.drop()
        finally:
            self.is_taking = False
        if transcript.last_id != EntryId(self.appender.attempt, 0):
            return self.drop()
        self.appender.next_number = transcript.next_number
        self.appender.taken(entries)
        self.transcript = transcript

    def write(self, deltas: list[str]) -> None:
        assert self.transcript is not None
        t = self.transcript.last_t
        if not self.transcript.open_items:
            self._append(InProgress(t=t), ItemAdded(t=t), PartAdded(t=t))
        for delta in deltas:
            self._append(Text(t=t, delta=delta, tokens=(len(self.transcript.tokens),)))

    def finish(self) -> None:
        """Write the end."""
        assert self.transcript is not None
        t = self.transcript.last_t
        if self.transcript.status == "queued":
            self._append(InProgress(t=t))
        usage = Usage(output_tokens=len(self.transcript.tokens))
        self._append(*closing_events(self.transcript, t, complete=True), Completed(t=t, usage=usage))
        self.is_over = True
        self._start(self._close_flushed())

    def _append(self, *events: LogEvent) -> None:
        assert self.transcript is not None
        for event in events:
            self.appender.append(event)
            self.transcript.note(event)

    async def _close_flushed(self) -> None:
        try:
            await self.appender.flushed()
        except (Fenced, LogGone):
            pass
        finally:
            self.appender.close()

    def hand_back(self) -> None:
        """Stop, and say that nobody owns it."""
        self.drop()
        self._start(self._release())

    async def _release(self) -> None:
        try:
            await self.appender.flushed()
            marker = self._writers.open(self.response_id, self.appender.attempt + 1)
            self.appenders.append(marker)
            await marker.take(0, released=True)
        except (Fenced, LogGone):
            pass
        finally:
            self.appenders[-1].close()

    def drop(self) -> None:
        """Stop, and say nothing."""
        self.is_over = True
        self.appender.close()

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


class Worker:
    """A worker process: its writer runs until it is killed."""

    def __init__(self, broker: Broker, logs: ResponseLogs, name: str) -> None:
        self._logs = logs
        self.boot = f"boot-{name}"
        self.wire = Wire(broker.commands)
        self._writers = Writers(
            self.wire,
            partitions=broker.partitions,
            consumer=name,
            boot=self.boot,
            flush_ms=0,
            bus_max_entries=BUS_ENTRIES,
        )
        self.attempts: list[Attempt] = []
        self._flushes = asyncio.create_task(self._writers.run_flushes())

    @property
    def is_at_rest(self) -> bool:
        if self._flushes.done():
            raise AssertionError("the writer stopped") from self._flushes.exception()
        if not all(attempt.is_at_rest for attempt in self.attempts):
            return False
        return self.wire.call is not None or not any(appender.pending for appender in self.appenders())

    def appenders(self) -> list[LogAppender]:
        return [appender for attempt in self.attempts for appender in attempt.appenders]

    def current(self, response_id: ResponseId) -> Attempt | None:
        """The attempt that it has not finished with."""
        for attempt in self.attempts:
            if attempt.response_id == response_id and not attempt.is_done:
                return attempt
        return None

    def owned(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.owns]

    def drop_lost(self) -> None:
        """As generation does that finds out at its next token."""
        for attempt in self.owned():
            if attempt.appender.error is not None:
                attempt.drop()

    def take(self, response_id: ResponseId, number: int) -> None:
        self.attempts.append(Attempt(self._writers, self._logs, response_id, number))

    async def kill(self) -> None:
        self._flushes.cancel()
        for attempt in self.attempts:
            attempt.cancel()
        await asyncio.gather(self._flushes, return_exceptions=True)


class Canceller:
    """A gateway that ends responses, one at a time."""

    def __init__(self, broker: Broker, name: str) -> None:
        self.name = name
        self.wire = Wire(broker.commands)
        logs = ResponseLogs(self.wire, bus_max_entries=BUS_ENTRIES, partitions=broker.partitions)
        self._ender = Ender(logs, FinishedStream(broker.commands), name=name, boot=f"boot-{name}")
        self._task: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def is_at_rest(self) -> bool:
        if self._task is not None and self._task.done():
            self._task.result()
        return self.wire.call is not None or not self.is_busy

    def begin(self, response_id: ResponseId) -> None:
        self._task = asyncio.create_task(self._end(response_id))

    async def _end(self, response_id: ResponseId) -> None:
        try:
            transcript = await self._ender.end(response_id, cancellation())
        except (LogGone, BrokerError):
            return  # its caller answers 404 or 503
        assert transcript.terminal is not None

    async def kill(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class Reader:
    """A gateway with one tail: what `ingress.tails.Tails` does, one step at a time."""

    def __init__(self, broker: Broker, logs: ResponseLogs, response_id: ResponseId) -> None:
        self._logs = logs
        self._client = broker.commands
        self._bus = Bus(broker.commands)
        self._position = "0-0"
        self.is_cut = False
        """It has lost its connection, and does not know yet."""
        self.tail = Tail(response_id, [])

    async def open(self) -> None:
        self._position = await self._bus.end()
        await self._repair()

    async def reconnect(self) -> None:
        self.is_cut = False
        self._position = await self._bus.end()
        if not self.tail.is_over:
            await self._repair()

    async def poll(self) -> bool:
        """Read the bus once; False where it had nothing new."""
        if self.is_cut:
            await self.reconnect()
        before = self._position
        if await self._bus.end() == before:
            return False  # else the read would block
        self._position, rows = await self._bus.read(before, 3, client=self._client, block_ms=1)
        mine = [decode_entry(entry_id, raw) for owner, entry_id, raw in rows if owner == self.tail.id]
        follows = [self.tail.add([entry]) for entry in mine if self.tail.error is None]
        if not all(follows):
            await self._repair()
        return self._position != before

    async def check(self) -> None:
        """The tail was silent: has its log gone on?"""
        if self.is_cut:
            return await self.reconnect()
        [last_id] = await self._logs.last_ids([self.tail.id])
        if not self.tail.is_over and (last_id is None or last_id > self.tail.last_id):
            await self._repair()

    async def _repair(self) -> None:
        try:
            self.tail.add(await self._logs.read(self.tail.id, self.tail.last_id))
        except LogGone:
            self.tail.fail(ResponseNotFound("No archive here."))
