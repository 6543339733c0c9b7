"""One broker with its actors, what a failover does to it, and what must hold at any time."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from formats.transcript import Transcript, closing_events
from ingress.cursor import Cursor
from ingress.tails import Tail
from schemas.errors import InvalidCursor, ResponseNotFound, StreamDiverged
from schemas.events import Accepted, Cancelled, Entry, Fence, LogEvent, Queued, Text, Usage
from schemas.ids import ResponseId, new_response_id
from schemas.requests import GenerationRequest, Message
from streams.connect import Broker
from streams.keys import bus_key, log_key
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
        self._broker = broker
        self.logs = ResponseLogs(broker.commands, bus_max_entries=BUS_ENTRIES, partitions=broker.partitions)
        self.ids = [new_response_id() for _ in range(LOGS)]
        self.histories = {i: History(self._accepted(i)) for i in self.ids}
        self.existing: set[ResponseId] = set()
        self.deleted: set[ResponseId] = set()
        self.sealed: set[ResponseId] = set()
        """Ended, as of the last check."""
        self._names = itertools.count()
        self._deltas = itertools.count()
        self._everybody: list[Worker] = []
        self.workers = [self._worker() for _ in range(WORKERS)]
        self.cancellers = [Canceller(broker, f"gateway-{i}") for i in range(CANCELLERS)]
        self.readers: list[Reader] = []
        self.orphans: list[Call] = []
        """Calls whose senders gave them up, and which the broker has yet to run."""
        self.snapshots: deque[Snapshot] = deque(maxlen=MOST_LAG)
        """The broker after each of the last steps, as a replica that lags may have it."""
        self.epoch = 0
        """Failovers so far."""
        self._written: set[tuple[ResponseId, str, str, bytes]] = set()
        """Response, boot, entry id and event of everything that a worker ever wanted to write."""

    @staticmethod
    def _accepted(response_id: ResponseId) -> Accepted:
        request = GenerationRequest(model="m", messages=[Message("user", "hi")])
        at_ms = time.time_ns() // 1_000_000
        return Accepted(t=0, id=response_id, tenant="a", format="responses", at_ms=at_ms, request=request)

    def _worker(self) -> Worker:
        worker = Worker(self._broker, self.logs, f"w-{next(self._names)}")
        self._everybody.append(worker)
        return worker

    @property
    def actors(self) -> list[Actor]:
        return [*self.workers, *self.cancellers]

    # What a test may do. Each returns when everybody waits.

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
                    self._written.add((appender.response_id, worker.boot, *pair))

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
        """Not while a number may be used twice (see `_shows_known_gap`)."""
        [last_id] = await self.logs.last_ids([response_id])
        if last_id is None or last_id.attempt >= self.histories[response_id].lost_attempt:
            canceller.begin(response_id)
            await self.rest()

    async def open_reader(self, response_id: ResponseId) -> None:
        reader = Reader(self._broker, self.logs, response_id)
        await reader.open()
        self.readers.append(reader)

    async def delete(self, response_id: ResponseId) -> None:
        """As when its time is over."""
        self.histories[response_id].timelines.append(await self.events(response_id))
        await self.logs.remove(response_id)
        self.existing.discard(response_id)
        self.deleted.add(response_id)

    async def _take_snapshot(self) -> Snapshot:
        client = self._broker.commands
        dumps = {key: await client.dump(key) for key in await client.keys("*")}
        logs = {i: await self.logs.read_raw(i) for i in self.ids}
        return Snapshot(dumps, logs, set(self.existing), set(self.deleted))

    async def fail_over(self, back: int) -> None:
        """The broker goes back some steps, where that shows no known gap."""
        snapshot = self.snapshots[-min(back, len(self.snapshots))]
        lost = {i: await self._lost(snapshot, i) for i in self.ids}
        if not self._shows_known_gap(lost):
            await self._restore(snapshot, lost)

    async def _lost(self, snapshot: Snapshot, response_id: ResponseId) -> list[RawEntry]:
        if response_id not in self.existing:
            return []
        return (await self.logs.read_raw(response_id))[len(snapshot.logs[response_id]) :]

    def _shows_known_gap(self, lost: dict[ResponseId, list[RawEntry]]) -> bool:
        """Two gaps of the protocol are known, and this is where they would show:

        - A worker puts its fence back behind another log than it was written behind: what stood before
          it is lost too, or who was taken over goes on meanwhile. Then there is a hole or a repeat.
        - Another uses the number of a lost fence: then two entries have the same id. What has already
          chosen its number must not be on its way; who chooses later goes beyond it (`take`, `cancel`).
        """
        is_busy = any(canceller.is_busy for canceller in self.cancellers)
        for response_id, entries in lost.items():
            fences = [i for i, entry in enumerate(entries) if _is_fence(entry)]
            of_workers = [i for i in fences if self._is_of_worker(entries[i])]
            writers = self._writing(response_id)
            if of_workers and (of_workers != [0] or len(writers) > 1):
                return True
            if fences and (is_busy or any(attempt.is_choosing for attempt in writers)):
                return True
        return False

    def _writing(self, response_id: ResponseId) -> list[Attempt]:
        attempts = [a for worker in self.workers for a in worker.attempts if a.response_id == response_id]
        return [a for a in attempts if a.appender.error is None and (not a.is_done or a.appender.pending)]

    def _is_of_worker(self, entry: RawEntry) -> bool:
        fence = decode_entry(*entry).event
        return isinstance(fence, Fence) and any(fence.boot == worker.boot for worker in self._everybody)

    async def _restore(self, snapshot: Snapshot, lost: dict[ResponseId, list[RawEntry]]) -> None:
        for response_id, history in self.histories.items():
            attempts = [decode_entry(*entry).id.attempt for entry in lost[response_id] if _is_fence(entry)]
            history.lost_attempt = max(history.lost_attempt, *attempts, 0)
            history.timelines.append(await self.events(response_id))
        await self._broker.commands.flushdb()
        for key, value in snapshot.dumps.items():
            await self._broker.commands.restore(key, 0, value)
        self.existing, self.deleted = set(snapshot.existing), set(snapshot.deleted)
        self.snapshots.clear()
        self.orphans.clear()
        self.epoch += 1
        for reader in self.readers:
            reader.is_cut = True

    async def events(self, response_id: ResponseId) -> list[Entry]:
        """What a client may see of a log."""
        return [decode_entry(*entry) for entry in await self.logs.read_raw(response_id) if not _is_fence(entry)]

    # What must hold.

    async def check(self) -> None:
        """After every step."""
        for response_id in self.ids:
            entries = await self.logs.read_raw(response_id)
            assert await self.logs.exists(response_id) == (response_id in self.existing), "only accept makes a log"
            transcript = self._check_log(response_id, entries)
            self.sealed.discard(response_id)
            if transcript.terminal is not None:
                self.sealed.add(response_id)
                info = await self._broker.commands.xinfo_stream(log_key(response_id))
                assert info["last-generated-id"] == _SEALED, "every end seals"
            self._check_acknowledged(response_id, entries)
        await self._check_bus()
        for reader in self.readers:
            await self._check_shown(reader.tail)
        self.snapshots.append(await self._take_snapshot())

    def _check_log(self, response_id: ResponseId, entries: list[RawEntry]) -> Transcript:
        """Sequences without hole or repeat (`Transcript.add`), each written by the owner of its fence, one end."""
        transcript = Transcript()
        closing: list[LogEvent] = []
        for raw in entries:
            entry = decode_entry(*raw)
            assert transcript.terminal is None, f"{entry.id} stands behind the end"
            assert entry.event.t >= transcript.last_t, "time falls"
            if isinstance(entry.event, Fence) and not self._is_of_worker(raw):
                closing = _end_of(transcript, entry.event.t)
            elif closing:
                assert entry.event == closing.pop(0), "an end does not fit what stands before it"
            elif entry.id.attempt > 0:
                boot = entry.event.boot if isinstance(entry.event, Fence) else _boot_of(transcript)
                assert (response_id, boot, *raw) in self._written, f"{entry.id} is not of the owner {boot}"
            if entry.id.attempt > 0 and not entry.id.is_fence:
                assert entry.id.attempt == transcript.last_id.attempt, f"{entry.id} has no fence"
            transcript.add(entry)
        assert not closing, "an end is cut off"
        return transcript

    def _check_acknowledged(self, response_id: ResponseId, entries: list[RawEntry]) -> None:
        """What a writer was told is written, is; after a failover: once it has written again."""
        if response_id not in self.existing:
            return
        there = set(entries)
        last_attempt = int(entries[-1][0].partition("-")[0])
        for worker in self._everybody if self.epoch == 0 else self.workers:
            has_repaired = worker.wire.call is None and worker.wire.answered_epoch == self.epoch
            for attempt in worker.attempts:
                if attempt.response_id != response_id:
                    continue
                is_kept = not attempt.is_over and attempt.appender.attempt == last_attempt and has_repaired
                if self.epoch == 0 or (is_kept and attempt.appender.error is None):
                    for appender in attempt.appenders:
                        missing = [entry_id for entry_id, raw in appender.kept if (entry_id, raw) not in there]
                        assert not missing, f"{worker.boot} was told that these are written: {missing}"

    async def _check_bus(self) -> None:
        """What is in a log is on the bus: once and in order, but for what was put back."""
        rows = await self._broker.commands.xrange(bus_key())
        for response_id in self.existing:
            prefix = f"{response_id} ".encode()
            on_bus = [
                (field.removeprefix(prefix).decode(), raw)
                for _, fields in rows
                for field, raw in fields.items()
                if field.startswith(prefix)
            ]
            entries = await self.logs.read_raw(response_id)
            in_log = [e for e in entries if not e[0].startswith("0-") and not _is_fence(e)]
            if self.epoch == 0:
                assert on_bus == in_log, "the bus is not the log"
            else:
                assert set(in_log) <= set(on_bus), "something is not on the bus"

    async def _check_shown(self, tail: Tail) -> None:
        """A client has seen the beginning of one log, as it is or as it was."""
        timelines = [await self.events(tail.id), *self.histories[tail.id].timelines]
        shown = tail.entries
        assert any(timeline[: len(shown)] == shown for timeline in timelines), "a mixture was shown"
        if self.epoch == 0 and tail.error is not None:
            assert isinstance(tail.error, ResponseNotFound), tail.error
            assert tail.id not in self.existing

    async def check_end(self) -> None:
        """Let everything that is on its way arrive; then every reader knows where it stands."""
        for actor in self.actors:
            await self.settle(actor)
        for reader in self.readers:
            while await reader.poll():
                pass
            await reader.check()
        await self.check()
        for reader in self.readers:
            await self._check_reader_at_end(reader.tail)

    async def _check_reader_at_end(self, tail: Tail) -> None:
        events = await self.events(tail.id)
        shown = tail.entries
        is_beginning = shown[: len(events)] == events[: len(shown)]
        if tail.error is None and not (tail.is_complete and self.epoch):
            assert is_beginning, "a client does not know that its stream is lost"
            assert self.epoch or shown == events or tail.id in self.deleted
        if not shown or tail.id not in self.existing:
            return
        try:
            Cursor(None, str(shown[-1].id)).start(Tail(tail.id, events))
        except (StreamDiverged, InvalidCursor):
            assert self.epoch
        else:
            assert is_beginning, "a lost cursor was taken"

    async def close(self) -> None:
        for actor in self.actors:
            await actor.kill()


def _is_fence(entry: RawEntry) -> bool:
    return entry[0].endswith("-0")


def _boot_of(transcript: Transcript) -> str:
    assert transcript.fence is not None, "an attempt without a fence"
    return transcript.fence.boot


def _end_of(transcript: Transcript, t: int) -> list[LogEvent]:
    usage = Usage(output_tokens=len(transcript.tokens))
    return [*closing_events(transcript, t, complete=False), Cancelled(t=t, usage=usage)]


def text_of(entries: list[Entry]) -> str:
    return "".join(entry.event.delta for entry in entries if isinstance(entry.event, Text))
