"""The inference worker: reads requests, generates, takes over from the dead.

One task reads, adopts and claims, so that together they never take more than the free
slots; one task per response generates; one flushes; one renews the lease.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any

from consumers.backoff import Backoff, wait_event
from consumers.bookkeeping import Bookkeeping
from consumers.context import AttemptContext
from consumers.generation import Attempt, Outcome, Owned
from consumers.isolation import Isolation
from consumers.loading import EngineLoader
from consumers.metrics import EngineMetrics
from consumers.presence import Presence
from consumers.rate import Rate
from consumers.revival import Reviver
from consumers.slots import ResponseSlots, SpareSlots
from consumers.stall import StallWatch
from engine.base import Engine
from responses.end import Ender
from schemas.errors import BadEntry, BrokerError, EngineDead, Fenced, GroupMissing, LogGone
from schemas.ids import ResponseId
from schemas.models import ModelEntry
from schemas.requests import LANES, Lane, RequestEntry
from schemas.settings import Settings
from schemas.workers import WorkerInfo
from streams.bus import Bus
from streams.connect import Broker
from streams.control import ControlStream
from streams.finished import FinishedStream
from streams.keys import RELEASED_CONSUMER
from streams.leases import Leases, WorkerRegistry
from streams.logs import ResponseLogs
from streams.queue import Delivery, RequestQueue
from streams.replication import Replication
from streams.writers import Writers
from telemetry.request_ids import note_request_id

log = logging.getLogger(__name__)

_BLOCK_MS = 200
_CONTROL_BLOCK_MS = 500
_SWEEP_S = 0.5
_STALL_LOOK_S = 0.5


class _Run:
    """A response being served: its task, its slots and every entry held for it."""

    def __init__(self, delivery: Delivery, slots: ResponseSlots) -> None:
        self.deliveries = [delivery]
        self.slots = slots
        self.is_abandoned = False
        self.is_ended = False
        """Somebody said that it was ended elsewhere."""
        self.is_settling = False
        self.task: asyncio.Task[None] | None = None


class InferenceWorker:
    """One engine, one consumer of the group `inference`."""

    def __init__(
        self, settings: Settings, model: ModelEntry, engine: Engine, broker: Broker, *, name: str, pid: int
    ) -> None:
        client = broker.commands
        self._settings = settings
        self._model = model
        self._engine = engine
        self._client = client
        self._blocking = broker.blocking(_BLOCK_MS)
        self._queue = RequestQueue(client, model.name)
        self._logs = ResponseLogs(client, bus_max_entries=settings.bus_max_entries, partitions=broker.partitions)
        self._finished = FinishedStream(client, Replication(broker.wait_replicas))
        self._control = ControlStream(client)
        self._control_blocking = broker.blocking(_CONTROL_BLOCK_MS)
        self._leases = Leases(client, settings.lease_ms)
        self._presence = Presence(
            self._leases,
            WorkerRegistry(client, self._leases),
            WorkerInfo(
                consumer="",
                name=name,
                model=model.name,
                engine=model.engine,
                slots=0,
                adapters=tuple(model.adapters),
                pid=pid,
                loading="starts",
            ),
        )
        self._metrics = EngineMetrics(model.name, model.engine)
        self._loader = EngineLoader(engine, self._presence, self._metrics)
        self._runs: dict[ResponseId, _Run] = {}
        self._buses = [Bus(client, partition) for partition in range(broker.partitions)]
        self._tokens = Rate()
        self._next_trim = 0.0
        self._slot_freed = asyncio.Event()
        self._spare = SpareSlots(self._slot_freed.set)
        self._reviver = Reviver(engine)
        self._isolation = Isolation()
        self._stall = StallWatch(round(settings.engine_stall_s / _STALL_LOOK_S))
        self._is_stuck = False
        self._books = Bookkeeping(self._queue, self._finished)
        self._failure: Exception | None = None
        self._failed = asyncio.Event()
        self._flushes: list[asyncio.Task[None]] = []
        self._writers = self._new_writers()

    @property
    def consumer(self) -> str:
        return self._presence.consumer

    async def run(self, stop: asyncio.Event) -> None:
        """Start the engine and serve until `stop` is set, then drain. The engine is closed by who made it.

        Raises SettingsError, EngineDead where the engine can not be started or revived.
        """
        self._start_flushes()
        left = asyncio.Event()
        background = [
            self._watch(self._presence.run(left, self._abandon_all)),
            self._watch(self._stop_on_failure(stop, left)),
        ]
        try:
            if await self._loader.load(stop):
                await self._begin(stop)
                background += [self._watch(self._follow_control(left)), self._watch(self._watch_engine(left))]
                await self._read_until(stop)
                await self._drain()
        finally:
            left.set()
            self._writers.stop()
            await asyncio.wait([*background, *self._flushes])
            await self._leave()
        if self._failure is not None:
            raise self._failure

    async def _begin(self, stop: asyncio.Event) -> None:
        backoff, engine = Backoff(), self._engine
        while not stop.is_set():
            try:
                await self._queue.ensure_groups()
                await self._presence.be_ready(
                    slots=engine.capacity, capabilities=engine.capabilities, context_length=engine.context_length
                )
            except BrokerError as exc:
                log.warning("worker_waits_for_broker error=%s", exc)
                await backoff.wait(stop)
            else:
                log.info("worker_ready consumer=%s model=%s slots=%d", self.consumer, self._model.name, engine.capacity)
                return

    async def _stop_on_failure(self, stop: asyncio.Event, left: asyncio.Event) -> None:
        while not left.is_set():
            if await wait_event(self._failed, _SWEEP_S / 2):
                stop.set()
                return

    async def _watch_engine(self, left: asyncio.Event) -> None:
        """Raises EngineDead where the engine is stuck: this process ends, and others go on with its requests."""
        while not await wait_event(left, _STALL_LOOK_S):
            if self._stall.look():
                self._is_stuck = True
                raise EngineDead(f"the engine gave nothing for {self._settings.engine_stall_s} s")

    # reading: nothing below takes more than the free slots

    @property
    def _free(self) -> int:
        return self._engine.capacity - len(self._runs) - self._spare.lent

    async def _read_until(self, stop: asyncio.Event) -> None:
        backoff = Backoff()
        next_sweep = 0.0
        while not stop.is_set():
            try:
                await self._read()
                if time.monotonic() >= next_sweep:
                    await self._sweep()
                    next_sweep = time.monotonic() + _SWEEP_S
                backoff.reset()
            except GroupMissing:
                log.warning("group_missing model=%s", self._model.name)
                await backoff.wait(stop)
                await self._recreate_groups()
            except BrokerError as exc:
                log.warning("read_failed consumer=%s error=%s", self.consumer, exc)
                await backoff.wait(stop)

    async def _recreate_groups(self) -> None:
        try:
            await self._queue.ensure_groups()
        except BrokerError as exc:
            log.warning("group_not_created error=%s", exc)

    async def _read(self) -> None:
        if self._free <= 0:
            self._slot_freed.clear()
            await wait_event(self._slot_freed, _BLOCK_MS / 1000)
            return
        consumer = self.consumer
        block_ms = None if self._spare.are_wanted else _BLOCK_MS
        for delivery in await self._queue.read(
            consumer, "interactive", self._free, client=self._blocking, block_ms=block_ms
        ):
            self._start(delivery)
        if self._free > 0:
            for delivery in await self._queue.read(consumer, "batch", self._free):
                self._start(delivery)
        self._spare.lend(self._free)

    async def _sweep(self) -> None:
        running, tokens_per_s = len(self._runs) + self._spare.lent, self._tokens.per_second()
        self._presence.update(running=running, tokens_per_s=tokens_per_s)
        self._metrics.pace(running=running, tokens_per_s=tokens_per_s)
        if time.monotonic() >= self._next_trim:
            self._next_trim = time.monotonic() + self._settings.bus_max_age_s / 2
            for bus in self._buses:
                await bus.trim(self._settings.bus_max_age_s)
        for lane in LANES:
            await self._adopt(lane)
            await self._claim_from_dead(lane)

    async def _adopt(self, lane: Lane) -> None:
        """Serve entries that are ours without our knowing: given by others, or delivered in a lost reply."""
        known = {d.entry_id for run in self._runs.values() for d in run.deliveries if d.lane == lane}
        unknown = [i for i in await self._queue.pending_ids(self.consumer, lane) if i not in known]
        for delivery in await self._queue.fetch(lane, unknown[: max(0, self._free)]):
            self._start(delivery)

    async def _claim_from_dead(self, lane: Lane) -> None:
        holders = await self._queue.holders(lane)
        others = [name for name in holders if name != self.consumer]
        living = await self._leases.living(others)
        for name in others:
            if name in living or not (name == RELEASED_CONSUMER or self._presence.may_claim()):
                continue
            if holders[name] == 0:
                if name != RELEASED_CONSUMER:
                    await self._queue.drop_consumer(name)
            elif self._free > 0:
                claimed = await self._queue.claim(name, self.consumer, lane, self._free)
                log.info("claimed consumer=%s from=%s lane=%s entries=%d", self.consumer, name, lane, len(claimed))
                for delivery in claimed:
                    self._start(delivery)

    # serving

    def _start(self, delivery: Delivery) -> None:
        try:
            entry = delivery.request()
        except BadEntry as exc:
            key = ResponseId(f"{delivery.lane} {delivery.entry_id}")
            work = self._books.unreadable(delivery, exc.message, self._new_ender())
            self._spawn(key, _Run(delivery, self._spare.open(choices=1)), work)
            return
        known = self._runs.get(entry.id)
        if known is not None:
            known.deliveries.append(delivery)
            return
        run = _Run(delivery, self._spare.open(entry.request.choices))
        self._spawn(entry.id, run, self._serve(entry, run))

    def _spawn(self, response_id: ResponseId, run: _Run, work: Coroutine[Any, Any, None]) -> None:
        self._runs[response_id] = run
        run.task = asyncio.create_task(work)
        run.task.add_done_callback(lambda task: self._done(response_id, task))

    def _watch(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._fail_with)
        return task

    def _fail_with(self, task: asyncio.Task[None]) -> None:
        """What nobody foresaw ends this process: its lease runs out and another goes on."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.error("worker_failed consumer=%s", self.consumer, exc_info=error)
        self._failure = self._failure or (error if isinstance(error, Exception) else EngineDead(str(error)))
        self._failed.set()

    def _done(self, response_id: ResponseId, task: asyncio.Task[None]) -> None:
        run = self._runs.pop(response_id, None)
        if run is not None:
            run.slots.close()
        self._slot_freed.set()
        self._fail_with(task)

    async def _follow_control(self, left: asyncio.Event) -> None:
        """Stop what was ended elsewhere at once; without the hint it is refused at its next write."""
        backoff = Backoff()
        position: str | None = None
        while not left.is_set():
            try:
                position = position or await self._control.end()
                position, entries = await self._control.read(
                    position, client=self._control_blocking, block_ms=_CONTROL_BLOCK_MS
                )
            except BrokerError as exc:
                log.warning("control_lost consumer=%s error=%s", self.consumer, exc)
                position = None
                await backoff.wait(left)
                continue
            backoff.reset()
            for entry in entries:
                self._stop_ended(entry.ended)

    def _stop_ended(self, response_id: ResponseId) -> None:
        run = self._runs.get(response_id)
        if run is not None and run.task is not None and not run.is_settling:
            log.info("ended_elsewhere id=%s consumer=%s", response_id, self.consumer)
            run.is_ended = True
            run.task.cancel()

    async def _serve(self, entry: RequestEntry, run: _Run) -> None:
        note_request_id(entry.request_id)
        attempt = Attempt(self._context(), entry, run.slots)
        try:
            outcome = await self._run_attempt(attempt)
        except asyncio.CancelledError:
            if run.is_abandoned:
                raise
            _uncancel()
            if not run.is_ended:
                await self._hand_back(attempt, run)
                raise
            run.is_ended = False
            await self._serve(entry, run)  # the log has the last word
            return
        except Owned as exc:
            await self._books.transfer(run.deliveries, exc.consumer)
            return
        except Fenced:
            log.info("fenced id=%s consumer=%s", entry.id, self.consumer)
            return
        except LogGone:
            outcome = Outcome.GONE
        except BadEntry as exc:
            log.error("log_unreadable id=%s error=%s", entry.id, exc.message)
            outcome = Outcome.UNREADABLE
        await self._settle(entry, run, outcome, attempt)

    async def _run_attempt(self, attempt: Attempt) -> Outcome:
        """Taking fails with the broker: begin again, the log tells how far it came."""
        backoff = Backoff()
        while True:
            try:
                return await attempt.run()
            except BrokerError as exc:
                log.warning("take_failed consumer=%s error=%s", self.consumer, exc)
                await backoff.wait()

    def _context(self) -> AttemptContext:
        return AttemptContext(
            consumer=self.consumer,
            logs=self._logs,
            leases=self._leases,
            writers=self._writers,
            tokens=self._tokens,
            metrics=self._metrics,
            engine=self._engine,
            model=self._model,
            max_attempts=self._settings.max_attempts,
            isolation=self._isolation,
            stall=self._stall,
            revive_engine=self._reviver.revive,
        )

    async def _settle(self, entry: RequestEntry, run: _Run, outcome: Outcome, attempt: Attempt) -> None:
        run.is_settling = True
        if outcome is Outcome.POISON:
            await self._books.poison(entry.id, run.deliveries, self._new_ender(), attempts=attempt.count)
        elif outcome is Outcome.GONE:
            await self._books.gone(run.deliveries, "log_gone")
        elif outcome is Outcome.UNREADABLE:
            if not entry.request.store:
                await self._books.let_expire(entry.id, self._logs, self._settings.unstored_ttl_s)
            await self._books.gone(run.deliveries, "log_unreadable")
        else:
            await self._books.ended(entry.id, attempt.status, run.deliveries)

    def _new_ender(self) -> Ender:
        return Ender(self._logs, self._finished, name=self.consumer, boot=self._presence.boot)

    async def _hand_back(self, attempt: Attempt, run: _Run) -> None:
        try:
            if not self._is_stuck:  # else it may be this request's fault: the attempt counts
                await attempt.hand_back()
            for delivery in run.deliveries:
                await self._queue.release(delivery)
        except (BrokerError, Fenced, LogGone) as exc:
            log.warning("hand_back_failed error=%s", exc)  # then the lease runs out, and another claims

    # leaving

    def _new_writers(self) -> Writers:
        return Writers(
            self._client,
            partitions=len(self._buses),
            consumer=self.consumer,
            boot=self._presence.boot,
            flush_ms=self._settings.flush_ms,
            bus_max_entries=self._settings.bus_max_entries,
        )

    def _start_flushes(self) -> None:
        self._flushes = [t for t in self._flushes if not t.done()] + [self._watch(self._writers.run_flushes())]

    def _abandon_all(self) -> None:
        """The lease was lost: others own everything now; go on empty-handed under the new name."""
        for run in self._runs.values():
            run.is_abandoned = True
            if run.task is not None:
                run.task.cancel()
        self._writers.stop()
        self._writers = self._new_writers()
        self._start_flushes()

    async def _drain(self) -> None:
        """Finish what can be finished in the grace time, and hand the rest back."""
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        if not tasks:
            return
        log.info("worker_drains consumer=%s running=%d", self.consumer, len(tasks))
        grace_s = self._settings.drain_grace_s if self._failure is None else 0
        _, rest = await asyncio.wait(tasks, timeout=grace_s)
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest, timeout=self._settings.broker_timeout_s * 2)

    async def _leave(self) -> None:
        try:
            await self._presence.end()
            if self._presence.info.is_ready:  # else it has never read
                await self._queue.drop_consumer(self.consumer)
        except BrokerError as exc:
            log.warning("leave_failed error=%s", exc)


def _uncancel() -> None:
    """The cancellation was taken: what this task does from here on counts as not cancelled."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
