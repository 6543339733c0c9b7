"""One broker with its actors, what a failover does to it, and what must hold at any time."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from schemas.events import Accepted, Entry, Fence, Queued
from schemas.ids import ResponseId, new_response_id
from schemas.requests import GenerationRequest, Message
from streams.connect import Broker
from streams.logs import RawEntry, ResponseLogs, decode_entry
from tests.property.actors import BUS_ENTRIES, Attempt, Call, Canceller, Reader, Wire, Worker
from tests.waiting import until

WORKERS, LOGS, CANCELLERS, READERS = 3, 2, 2, 3
MOST_LAG = 8
"""Steps that a replica may lag behind."""
_SEALED = b"18446744073709551615-0"
_TURNS = 300
"""Of the event loop, before it is left to itself."""
_MOST_LOSSES = 2
_MOST_CALLS = 40
"""A writer that needs more to come to rest never will."""

Actor = Worker | Canceller


@dataclass
class Snapshot:
    """The broker as a replica has it."""

    dumps: dict[bytes, bytes]
    logs: dict[ResponseId, list[RawEntry]]
    existing: set[ResponseId]
    deleted: set[ResponseId]


@dataclass
class History:
    """What one response went through."""

    accepted: Accepted
    timelines: list[list[Entry]] = field(default_factory=list)
    """Its events before each failover or deletion."""
    lost_attempt: int = 0
    """The highest attempt whose fence a failover lost."""


class World:
    """Everything that one example needs; its ids are fresh, its broker empty."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.logs = ResponseLogs(broker.commands, bus_max_entries=BUS_ENTRIES, partitions=broker.partitions)
        self.ids = [new_response_id() for _ in range(LOGS)]
        self.histories = {i: History(self._accepted(i)) for i in self.ids}
        self.existing: set[ResponseId] = set()
        self.deleted: set[ResponseId] = set()
        self.sealed: set[ResponseId] = set()
        """Ended, as of the last check."""
        self._names = itertools.count()
        self._deltas = itertools.count()
        self.everybody: list[Worker] = []
        self.workers = [self._worker() for _ in range(WORKERS)]
        self.cancellers = [Canceller(broker, f"gateway-{i}") for i in range(CANCELLERS)]
        self.readers: list[Reader] = []
        self.orphans: list[Call] = []
        """Calls whose senders gave them up, and which the broker has yet to run."""
        self.snapshots: deque[Snapshot] = deque(maxlen=MOST_LAG)
        """The broker after each of the last steps, as a replica that lags may have it."""
        self.epoch = 0
        """Failovers so far."""
        self.written: set[tuple[ResponseId, str, str, bytes]] = set()
        """Response, boot, entry id and event of everything that a worker ever wanted to write."""

    @staticmethod
    def _accepted(response_id: ResponseId) -> Accepted:
        request = GenerationRequest(model="m", messages=[Message("user", "hi")])
        at_ms = time.time_ns() // 1_000_000
        return Accepted(t=0, id=response_id, tenant="a", format="responses", at_ms=at_ms, request=request)

    def _worker(self) -> Worker:
        worker = Worker(self.broker, self.logs, f"w-{next(self._names)}")
        self.everybody.append(worker)
        return worker

    @property
    def actors(self) -> list[Actor]:
        return [*self.workers, *self.cancellers]

    async def rest(self) -> None:
        """Until every actor waits for the broker or has nothing to do."""
        for _ in range(_TURNS):
            if self._is_at_rest():
                break
            await asyncio.sleep(0)  # one turn of the loop
        else:
            await until(self._is_at_rest, timeout_s=5, what="the actors to wait for the broker")
        for worker in self.workers:
            worker.drop_lost()
            for appender in worker.appenders():
                for pair in (*appender.pending, *appender.kept):
                    self.written.add((appender.response_id, worker.boot, *pair))

    def _is_at_rest(self) -> bool:
        return all(actor.is_at_rest for actor in self.actors)

    async def accept(self, response_id: ResponseId) -> None:
        accepted = self.histories[response_id].accepted
        await self.logs.accept(response_id, accepted.at_ms, (accepted, Queued(t=0, lane="interactive")))
        self.existing.add(response_id)

    async def take(self, worker: Worker, response_id: ResponseId, *, is_blind: bool = False) -> None:
        """Blind: as for a request that nobody has taken, without a look at the log."""
        [last_id] = await self.logs.last_ids([response_id])
        lost = self.histories[response_id].lost_attempt
        seen = last_id.attempt if last_id is not None else 0
        worker.take(response_id, 1 if is_blind and seen >= lost else max(seen, lost) + 1)
        await self.rest()

    async def write(self, attempt: Attempt, count: int) -> None:
        attempt.write([f" {next(self._deltas)}" for _ in range(count)])
        await self.rest()

    async def do(self, step: Callable[[], None]) -> None:
        step()
        await self.rest()

    async def run(self, wire: Wire) -> None:
        assert wire.call is not None
        if not wire.call.is_run:
            await wire.call.run(self.epoch)

    async def answer(self, wire: Wire) -> None:
        await self.run(wire)
        assert wire.call is not None
        call, wire.call = wire.call, None
        wire.answered_epoch = call.epoch
        wire.losses = 0
        call.answer()
        await self.rest()

    async def lose(self, wire: Wire) -> None:
        """The connection breaks. What was not run may be, later. Seldom: the callers' patience grows."""
        assert wire.call is not None
        if wire.losses == _MOST_LOSSES:
            return
        call, wire.call = wire.call, None
        if not call.is_run:
            self.orphans.append(call)
        wire.losses += 1
        call.lose()
        await self.rest()

    async def go_on(self, actor: Actor, how: str) -> None:
        if how == "settle":
            await self.settle(actor)
        elif how == "answer":
            await self.answer(actor.wire)
        else:
            await self.run(actor.wire)

    async def settle(self, actor: Actor) -> None:
        """Run and answer until it has nothing in flight."""
        for _ in range(_MOST_CALLS):
            if actor.wire.call is None:
                return
            await self.answer(actor.wire)
        raise AssertionError("a writer does not come to rest")

    async def kill(self, index: int) -> None:
        """A worker dies; what it sent may still be run."""
        worker = self.workers[index]
        if worker.wire.call is not None and not worker.wire.call.is_run:
            self.orphans.append(worker.wire.call)
        await worker.kill()
        self.workers[index] = self._worker()

    async def run_late(self, index: int) -> None:
        await self.orphans.pop(index).run(self.epoch)

    async def cancel(self, canceller: Canceller, response_id: ResponseId) -> None:
        """Not while a number may be used twice (see `_may_reuse_a_number`)."""
        [last_id] = await self.logs.last_ids([response_id])
        if last_id is None or last_id.attempt >= self.histories[response_id].lost_attempt:
            canceller.begin(response_id)
            await self.rest()

    async def open_reader(self, response_id: ResponseId) -> None:
        reader = Reader(self.broker, self.logs, response_id)
        await reader.open()
        self.readers.append(reader)

    async def delete(self, response_id: ResponseId) -> None:
        """As when its time is over."""
        self.histories[response_id].timelines.append(await self.events(response_id))
        await self.logs.remove(response_id)
        self.existing.discard(response_id)
        self.deleted.add(response_id)

    async def replicate(self) -> None:
        """A replica has come this far, and may stay there for some steps."""
        self.snapshots.append(await self._take_snapshot())

    async def _take_snapshot(self) -> Snapshot:
        client = self.broker.commands
        dumps = {key: await client.dump(key) for key in await client.keys("*")}
        logs = {i: await self.logs.read_raw(i) for i in self.ids}
        return Snapshot(dumps, logs, set(self.existing), set(self.deleted))

    async def fail_over(self, back: int) -> None:
        """The broker goes back some steps, where that makes no number come twice."""
        snapshot = self.snapshots[-min(back, len(self.snapshots))]
        lost = {i: await self._lost(snapshot, i) for i in self.ids}
        if not self._may_reuse_a_number(lost):
            await self._restore(snapshot, lost)

    async def _lost(self, snapshot: Snapshot, response_id: ResponseId) -> list[RawEntry]:
        if response_id not in self.existing:
            return []
        return (await self.logs.read_raw(response_id))[len(snapshot.logs[response_id]) :]

    def _may_reuse_a_number(self, lost: dict[ResponseId, list[RawEntry]]) -> bool:
        """One limit of the protocol is known (docs/reliability.md): another may use the number of a lost fence, and
        then two entries have the same id. What has already chosen its number must not be on its way; who chooses
        later goes beyond it (`take`, `cancel`).
        """
        is_busy = any(canceller.is_busy for canceller in self.cancellers)
        for response_id, entries in lost.items():
            has_fence = any(is_fence(entry) for entry in entries)
            if has_fence and (is_busy or any(attempt.is_choosing for attempt in self._writing(response_id))):
                return True
        return False

    def _writing(self, response_id: ResponseId) -> list[Attempt]:
        attempts = [a for worker in self.workers for a in worker.attempts if a.response_id == response_id]
        return [a for a in attempts if a.appender.error is None and (not a.is_done or a.appender.pending)]

    def is_of_worker(self, entry: RawEntry) -> bool:
        fence = decode_entry(*entry).event
        return isinstance(fence, Fence) and any(fence.boot == worker.boot for worker in self.everybody)

    async def _restore(self, snapshot: Snapshot, lost: dict[ResponseId, list[RawEntry]]) -> None:
        for response_id, history in self.histories.items():
            attempts = [decode_entry(*entry).id.attempt for entry in lost[response_id] if is_fence(entry)]
            history.lost_attempt = max(history.lost_attempt, *attempts, 0)
            history.timelines.append(await self.events(response_id))
        await self.broker.commands.flushdb()
        for key, value in snapshot.dumps.items():
            await self.broker.commands.restore(key, 0, value)
        self.existing, self.deleted = set(snapshot.existing), set(snapshot.deleted)
        self.snapshots.clear()
        self.orphans.clear()
        self.epoch += 1
        for reader in self.readers:
            reader.is_cut = True

    async def events(self, response_id: ResponseId) -> list[Entry]:
        """What a client may see of a log."""
        return [decode_entry(*entry) for entry in await self.logs.read_raw(response_id) if not is_fence(entry)]

    async def end_all(self) -> None:
        """Everything on its way arrives, and a new worker ends what is left."""
        for actor in self.actors:
            await self.settle(actor)
        await self.kill(0)
        worker = self.workers[0]
        for response_id in self.existing:
            await self.take(worker, response_id)
            await self.settle(worker)
        for attempt in worker.owned():
            await self.do(attempt.finish)
        await self.settle(worker)

    async def close(self) -> None:
        for actor in self.actors:
            await actor.kill()


def is_fence(entry: RawEntry) -> bool:
    return entry[0].endswith("-0")
