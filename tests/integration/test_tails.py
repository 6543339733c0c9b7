"""Tails: what a gateway shows is the log, whatever happens to the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from archive.connect import open_archive
from archive.migrate import migrate
from consumers.archiver import Archiver
from ingress.tails import Tail, Tails
from responses.accept import Prepared
from responses.end import Ender
from responses.read import ResponseReader
from responses.restore import Restorer
from responses.rows import archived_response
from schemas.errors import QueueFull, ResponseNotFound, StreamDiverged
from schemas.events import Entry, EntryId, Failed, Text
from schemas.ids import new_response_id
from schemas.requests import FinishedEntry
from schemas.settings import Settings
from streams.connect import Broker
from streams.finished import FinishedStream
from streams.keys import bus_key, log_key, open_key, partition_of
from streams.queue import RequestQueue
from tests.integration.rig import SETTINGS, Rig, synthetic, text_of
from tests.waiting import until


@pytest.fixture(params=["valkey", "redis", "cluster"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def url(tmp_path: Path) -> str:
    url = f"sqlite+aiosqlite:///{tmp_path / 'archive.sqlite3'}"
    await migrate(url, print)
    return url


@asynccontextmanager
async def gateway(broker: Broker, url: str) -> AsyncIterator[Tails]:
    rig = Rig(broker)
    async with open_archive(url) as archive:
        finished = FinishedStream(broker.commands)
        ender = Ender(rig.logs, finished, name="g", boot="g")
        restorer = Restorer(rig.logs, archive, finished, lambda _: rig.queue, rig.histories(archive))
        tails = Tails(broker, rig.logs, ResponseReader(rig.logs, archive), ender, restorer)
        tasks = [asyncio.create_task(tails.run_buses()), asyncio.create_task(tails.run_checks())]
        yield tails
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def text(tail: Tail) -> str:
    return "".join(e.event.delta for e in tail.entries if isinstance(e.event, Text))


async def accept(rig: Rig, tails: Tails, prepared: Prepared) -> Tail:
    """As a gateway does it: until it is in the log, nobody looks for it there."""
    tail = tails.adopt(prepared.id, prepared.entries)
    tail.is_accepted = False
    await rig.intake.accept(prepared)
    tail.is_accepted = True
    return tail


async def complete(tail: Tail) -> None:
    await until(lambda: tail.is_over, what="the end of the tail")
    assert tail.error is None
    assert [e.id.sequence for e in tail.entries] == list(range(len(tail.entries)))


async def test_a_tail_follows_its_log_over_the_bus(broker: Broker, url: str) -> None:
    rig = Rig(broker)
    async with gateway(broker, url) as tails, rig.worker():
        prepared = rig.prepare(30)
        tail = await accept(rig, tails, prepared)
        await complete(tail)
        assert text(tail) == text_of(30)
        late = await tails.open(prepared.id)
        assert late is tail
        tails.release(late)
        tails.release(tail)
        assert not tails._tails


async def test_a_gap_on_the_bus_is_repaired_from_the_log(broker: Broker, url: str) -> None:
    rig = Rig(broker)
    async with gateway(broker, url) as tails, rig.worker(engine=synthetic(100)):
        prepared = rig.prepare(60)
        tail = await accept(rig, tails, prepared)
        await until(lambda: len(tail.entries) > 15)
        del tail.entries[10:]  # as if these had been trimmed from the bus before they were read
        tail.last_id = tail.entries[-1].id
        await complete(tail)
        assert text(tail) == text_of(60)


async def test_a_silent_bus_is_noticed_and_the_log_read(broker: Broker, url: str) -> None:
    rig = Rig(broker)
    async with gateway(broker, url) as tails:
        prepared = rig.prepare(20)
        tail = await accept(rig, tails, prepared)
        for partition, bus in enumerate(tails._buses):
            bus._key = f"oc:{{{partition}}}:elsewhere"  # a bus that never says anything
        await asyncio.gather(rig_run(rig), complete(tail))
        assert text(tail) == text_of(20)


async def rig_run(rig: Rig) -> None:
    async with rig.worker():
        await rig.idle()


async def test_a_tail_whose_log_has_expired_goes_on_from_the_archive(broker: Broker, url: str) -> None:
    rig = Rig(broker)
    prepared = await rig.ask(20)
    async with rig.worker():
        await rig.ended(prepared.id)
    async with open_archive(url) as archive:
        await archive.insert([archived_response(prepared.id, await rig.logs.read_raw(prepared.id))])
    async with gateway(broker, url) as tails:
        live = await tails.open(prepared.id)
        entries = list(live.entries)
        tails.release(live)
        await broker.commands.delete(log_key(prepared.id, broker.partitions))
        half = tails.adopt(prepared.id, entries[:10])
        await complete(half)
        assert half.entries == entries
        tails.release(half)
        whole = await tails.open(prepared.id)
        assert whole.entries == entries


async def test_an_unknown_response_leaves_no_tail_behind(broker: Broker, url: str) -> None:
    async with gateway(broker, url) as tails:
        with pytest.raises(ResponseNotFound):
            await tails.open(new_response_id())
        assert not tails._tails


async def test_an_entry_that_differs_from_what_was_shown_ends_the_stream(broker: Broker, url: str) -> None:
    async with gateway(broker, url):
        prepared = Rig(broker).prepare()
        tail = Tail(prepared.id, prepared.entries)
        tail.add([Entry(EntryId(1, 3), Text(t=1, delta="shown"))])
        tail.add([Entry(EntryId(2, 0), prepared.queued), Entry(EntryId(2, 3), Text(t=1, delta="other"))])
        assert isinstance(tail.error, StreamDiverged)
        assert text(tail) == "shown"


async def test_a_late_response_that_no_worker_serves_is_ended_by_the_gateway(broker: Broker, url: str) -> None:
    rig = Rig(broker)
    async with gateway(broker, url) as tails:
        prepared = rig.prepare(5, deadline_at_ms=1)
        tail = await accept(rig, tails, prepared)
        await complete(tail)
        last = tail.entries[-1].event
        assert isinstance(last, Failed)
        assert last.error.code == "deadline_exceeded"
    async with rig.worker():
        await rig.idle()  # the worker finds the log sealed and finishes the entry


async def test_the_bus_starts_anew_after_its_key_was_lost(broker: Broker, url: str) -> None:
    rig = Rig(broker)
    async with gateway(broker, url) as tails, rig.worker():
        for lose in (False, True):
            if lose:
                for partition in range(broker.partitions):
                    await broker.commands.delete(bus_key(partition))
            prepared = rig.prepare(10)
            tail = await accept(rig, tails, prepared)
            await complete(tail)


async def test_a_full_queue_is_refused_before_anything_is_written(broker: Broker, url: str) -> None:
    rig = Rig(broker, settings=Settings(engine="synthetic", max_queued=2))
    for _ in range(2):
        await rig.ask()
    with pytest.raises(QueueFull):
        await rig.intake.check_room("synthetic", "interactive")


async def test_the_archiver_writes_what_has_ended_and_lets_logs_expire_only_then(broker: Broker, url: str) -> None:
    rig = Rig(broker)
    finished = FinishedStream(broker.commands)
    done, running = await rig.ask(5), rig.prepare(5)
    async with rig.worker():
        await rig.ended(done.id)
        await rig.idle()
    await rig.intake.accept(running)
    await finished.send(FinishedEntry(id=running.id, status="ended"))  # but its log has no end
    await finished.send(FinishedEntry(id=new_response_id(), status="ended"))  # and this one no log
    await broker.commands.xadd("oc:finished", {"finished": "{nonsense"})
    stop = asyncio.Event()
    async with open_archive(url) as archive:
        archiver = asyncio.create_task(Archiver(SETTINGS, broker, archive, name="a").run(stop))

        async def only_the_unfinished_is_left() -> bool:
            return await finished.lag("archiver") == 1

        await until(only_the_unfinished_is_left)
        stop.set()
        await archiver
        stored = await archive.read_log(done.id)
        assert stored is not None
        assert [(e.id, e.event.encode()) for e in stored] == await rig.logs.read_raw(done.id)
        assert await archive.read_log(running.id) is None
    assert await broker.commands.ttl(log_key(done.id, broker.partitions)) > 0
    assert await broker.commands.ttl(log_key(running.id, broker.partitions)) == -1
    assert await broker.commands.zrange(open_key(partition_of(running.id, broker.partitions)), 0, -1) == [
        running.id.encode()
    ]
    assert await RequestQueue(broker.commands, "synthetic").depth("interactive") == 1
