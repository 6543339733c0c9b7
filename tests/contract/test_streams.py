"""What `streams/` promises, over Valkey 9.1, Debian's Redis 7, Sentinel and a Cluster (docs/protocol.md)."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from formats.transcript import transcript_of
from responses.end import Ender, cancellation, failure
from schemas.errors import BadEntry, BrokerError, BrokerTimeout, Fenced, LogGone
from schemas.events import Accepted, Completed, Entry, EntryId, InProgress, LogEvent, Queued, Text, Usage
from schemas.ids import ResponseId, new_response_id
from schemas.requests import FinishedEntry, GenerationRequest, Message
from streams.bus import Bus
from streams.connect import Broker
from streams.embedded import EmbeddedBroker
from streams.finished import FinishedStream
from streams.keys import bus_key, log_key, mark_key, open_key, partition_of
from streams.leases import Leases
from streams.logs import ResponseLogs
from streams.writer import LogAppender
from streams.writers import Writers
from tests.conftest import ON_ONE_NODE
from tests.waiting import until


@pytest.fixture(params=["valkey", "redis", "sentinel", "cluster"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


REQUEST = GenerationRequest(model="m", messages=[Message("user", "hi")])


async def accept(broker: Broker, response_id: ResponseId | None = None) -> ResponseId:
    response_id = response_id or new_response_id()
    logs = logs_of(broker)
    accepted = Accepted(t=0, id=response_id, tenant="a", format="chat", at_ms=1, request=REQUEST)
    await logs.accept(response_id, 1, (accepted, Queued(t=0, lane="interactive")))
    return response_id


def logs_of(broker: Broker) -> ResponseLogs:
    return ResponseLogs(broker.commands, bus_max_entries=1000, partitions=broker.partitions)


@asynccontextmanager
async def worker(broker: Broker, name: str = "w-1", flush_ms: int = 0) -> AsyncIterator[Writers]:
    writer = Writers(
        broker.commands,
        partitions=broker.partitions,
        consumer=name,
        boot=f"boot-{name}",
        flush_ms=flush_ms,
        bus_max_entries=1000,
    )
    task = asyncio.create_task(writer.run_flushes())
    yield writer
    writer.stop()
    await task


async def take(writer: Writers, response_id: ResponseId, attempt: int = 1, next_number: int = 3) -> LogAppender:
    appender = writer.open(response_id, attempt)
    await appender.take(0)
    appender.next_number = next_number
    return appender


async def write_texts(appender: LogAppender, texts: list[str]) -> None:
    for text in texts:
        appender.append(Text(t=1, delta=text, tokens=(1,)))
    await appender.flushed()


async def ids_of(broker: Broker, response_id: ResponseId) -> list[str]:
    return [entry_id for entry_id, _ in await logs_of(broker).read_raw(response_id)]


async def bus_ids(broker: Broker, response_id: ResponseId, *, fences: bool = False) -> list[str]:
    bus = Bus(broker.commands, partition_of(response_id, broker.partitions))
    _, entries = await bus.read("0-0", 1000, client=broker.commands, block_ms=1)
    return [i for owner, i, _ in entries if owner == response_id and (fences or not i.endswith("-0"))]


async def test_events_are_read_in_the_order_in_which_they_were_written(broker: Broker) -> None:
    response_id = await accept(broker)
    async with worker(broker) as writer:
        appender = await take(writer, response_id)
        await write_texts(appender, [f"t{i}" for i in range(700)])
    entries = await logs_of(broker).read(response_id)
    assert [e.id.number for e in entries] == [1, 2, 0, *range(3, 703)]
    assert transcript_of(entries).text == "".join(f"t{i}" for i in range(700))


async def test_reading_after_every_sequence_gives_exactly_the_rest(broker: Broker) -> None:
    response_id = await accept(broker)
    async with worker(broker) as writer:
        await write_texts(await take(writer, response_id), ["a", "b", "c"])
    everything = await logs_of(broker).read(response_id)
    for i, entry in enumerate(everything):
        assert await logs_of(broker).read(response_id, entry.id) == everything[i + 1 :]


async def test_what_is_in_the_log_is_on_the_bus_fences_too(broker: Broker) -> None:
    response_id = await accept(broker)
    async with worker(broker) as writer:
        await write_texts(await take(writer, response_id), ["a", "b"])
    assert await bus_ids(broker, response_id, fences=True) == ["1-0", "1-3", "1-4"]


async def test_of_two_that_take_the_same_attempt_one_is_fenced(broker: Broker) -> None:
    response_id = await accept(broker)
    async with worker(broker, "w-1") as one, worker(broker, "w-2") as two:
        results = await asyncio.gather(
            one.open(response_id, 1).take(0), two.open(response_id, 1).take(0), return_exceptions=True
        )
    assert sorted(type(r) for r in results if r is not None) == [Fenced]
    assert (await ids_of(broker, response_id)).count("1-0") == 1


async def test_a_zombie_is_refused_and_leaves_no_trace(broker: Broker) -> None:
    response_id = await accept(broker)
    async with worker(broker, "zombie") as zombie, worker(broker, "heir") as heir:
        old = await take(zombie, response_id)
        await write_texts(old, ["a"])
        new = await take(heir, response_id, attempt=2, next_number=4)
        await write_texts(new, ["b"])
        before, bus_before = await ids_of(broker, response_id), await bus_ids(broker, response_id)
        with pytest.raises(Fenced):
            await write_texts(old, ["late"])
    assert await ids_of(broker, response_id) == before == ["0-1", "0-2", "1-0", "1-3", "2-0", "2-4"]
    assert await bus_ids(broker, response_id) == bus_before


async def test_one_fenced_log_does_not_hold_up_the_others_of_a_flush(broker: Broker) -> None:
    lost, kept = await accept(broker), await accept(broker)
    async with worker(broker, "w-1") as one, worker(broker, "w-2") as two:
        first, second = await take(one, lost), await take(one, kept)
        await take(two, lost, attempt=2)
        first.append(Text(t=1, delta="x"))
        second.append(Text(t=1, delta="y"))
        await second.flushed()
        with pytest.raises(Fenced):
            await first.flushed()
    assert "1-3" in await ids_of(broker, kept)


async def test_a_workers_own_retry_is_recognised_and_not_written_twice(broker: Broker) -> None:
    response_id = await accept(broker)
    async with worker(broker) as writer:
        appender = await take(writer, response_id)
        await write_texts(appender, ["a", "b"])
        pairs = list(appender.kept)
        own = appender._writer
        own._number -= 1  # as if the reply of the last flush had been lost
        await own._flush([(appender, pairs[1:])])
        assert appender.error is None
    assert await ids_of(broker, response_id) == ["0-1", "0-2", "1-0", "1-3", "1-4"]
    assert await bus_ids(broker, response_id) == ["1-3", "1-4"]


@ON_ONE_NODE
async def test_a_broker_out_of_memory_is_not_taken_for_a_fence(broker: Broker) -> None:
    response_id = await accept(broker)
    async with worker(broker) as writer:
        appender = await take(writer, response_id)
        await broker.commands.config_set("maxmemory", "1")
        appender.append(Text(t=1, delta="a"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await appender.flushed()
        assert appender.error is None
        await broker.commands.config_set("maxmemory", "0")
        await appender.flushed()
    assert (await ids_of(broker, response_id))[-1] == "1-3"


@ON_ONE_NODE
async def test_a_read_only_broker_is_not_taken_for_a_fence(broker: Broker) -> None:
    response_id = await accept(broker)
    async with worker(broker) as writer:
        appender = await take(writer, response_id)
        await broker.commands.execute_command("REPLICAOF", "127.0.0.1", "1")
        appender.append(Text(t=1, delta="a"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await appender.flushed()
        await broker.commands.execute_command("REPLICAOF", "NO", "ONE")
        await appender.flushed()
    assert (await ids_of(broker, response_id))[-1] == "1-3"


async def test_a_terminal_event_seals_the_log_for_everybody(broker: Broker) -> None:
    response_id = await accept(broker)
    async with worker(broker, "w-1") as one, worker(broker, "w-2") as two:
        appender = await take(one, response_id)
        for event in (InProgress(t=1), Completed(t=2, usage=Usage())):
            appender.append(event)
        await appender.flushed()
        with pytest.raises(Fenced):
            await two.open(response_id, 2).take(0)
        with pytest.raises(Fenced):
            await two.open(response_id, 10**15).take(0)
    with pytest.raises(Exception, match="equal or smaller"):
        await broker.commands.xadd(log_key(response_id, broker.partitions), {"event": "x"}, id="99-1")
    assert (await ids_of(broker, response_id))[-1] == "1-4"


@ON_ONE_NODE
async def test_a_seal_survives_a_restart_of_the_broker(server: EmbeddedBroker, broker: Broker) -> None:
    response_id = await accept(broker)
    async with worker(broker) as writer:
        appender = await take(writer, response_id)
        appender.append(InProgress(t=1))
        appender.append(Completed(t=2, usage=Usage()))
        await appender.flushed()
    await broker.commands.bgrewriteaof()
    await until(lambda: rewrite_is_over(broker))
    await server.stop()
    await server.start()
    async with worker(broker, "w-2") as two:
        with pytest.raises(Fenced):
            await two.open(response_id, 7).take(0)


async def rewrite_is_over(broker: Broker) -> bool:
    info = await broker.commands.info("persistence")
    return info["aof_rewrite_in_progress"] == 0 and info["aof_rewrite_scheduled"] == 0


async def test_lost_writes_are_put_back_in_order_under_the_same_ids(broker: Broker) -> None:
    n = broker.partitions
    kept, lost = await accept(broker), await accept(broker)
    async with worker(broker) as writer:
        one, two = await take(writer, kept), await take(writer, lost)
        await write_texts(one, ["a"])
        backup = [
            (key, await broker.commands.dump(key)) for key in (log_key(lost, n), mark_key("w-1", partition_of(lost, n)))
        ]
        await write_texts(two, ["b", "c"])
        for key, value in backup:  # what a failover to a replica that lagged does
            await broker.commands.restore(key, 0, value, replace=True)
        await write_texts(two, ["d"])
        await write_texts(one, ["e"])
    assert await ids_of(broker, lost) == ["0-1", "0-2", "1-0", "1-3", "1-4", "1-5"]
    assert await ids_of(broker, kept) == ["0-1", "0-2", "1-0", "1-3", "1-4"]
    assert transcript_of(await logs_of(broker).read(lost)).text == "bcd"


async def test_a_missing_mark_writes_nothing_before_the_lost_entries_are_back(broker: Broker) -> None:
    response_id = await accept(broker)
    async with worker(broker) as writer:
        appender = await take(writer, response_id)
        await write_texts(appender, ["a"])
        await broker.commands.delete(mark_key("w-1", partition_of(response_id, broker.partitions)))
        await write_texts(appender, ["b"])
    assert await ids_of(broker, response_id) == ["0-1", "0-2", "1-0", "1-3", "1-4"]
    assert sorted(set(await bus_ids(broker, response_id))) == ["1-3", "1-4"]


async def test_a_lost_script_cache_is_not_noticed(broker: Broker) -> None:
    response_id = await accept(broker)
    async with worker(broker) as writer:
        appender = await take(writer, response_id)
        await broker.commands.script_flush()
        await write_texts(appender, ["a"])
    assert (await ids_of(broker, response_id))[-1] == "1-3"


async def test_more_commands_than_connections_wait_for_one(broker_url: str) -> None:
    broker = Broker(broker_url, timeout_s=2.0, connections=2)
    ids = await asyncio.gather(*(accept(broker) for _ in range(100)))
    assert len(await asyncio.gather(*(logs_of(broker).read(i) for i in ids))) == 100
    await broker.close()


@ON_ONE_NODE
async def test_a_worker_goes_on_after_the_broker_was_killed(server: EmbeddedBroker, broker: Broker) -> None:
    response_id = await accept(broker)
    async with worker(broker) as writer:
        appender = await take(writer, response_id)
        await write_texts(appender, ["a"])
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        await server.wait()
        for i in range(50):
            appender.append(Text(t=2, delta=f"b{i}"))
        await server.start()
        await appender.flushed()
    text = transcript_of(await logs_of(broker).read(response_id)).text
    assert text == "a" + "".join(f"b{i}" for i in range(50))


@ON_ONE_NODE
async def test_a_frozen_broker_times_out_and_nothing_is_written_twice(server: EmbeddedBroker, broker: Broker) -> None:
    response_id = await accept(broker)
    impatient = Broker(server.url, timeout_s=0.2, connections=4)
    assert server.pid is not None
    async with worker(impatient) as writer:
        appender = await take(writer, response_id)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(BrokerTimeout):
                await impatient.ping()
            appender.append(Text(t=1, delta="a"))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.7):
                    await appender.flushed()
        finally:
            os.kill(server.pid, signal.SIGCONT)
        await appender.flushed()
    await impatient.close()
    assert await ids_of(broker, response_id) == ["0-1", "0-2", "1-0", "1-3"]
    assert await bus_ids(broker, response_id) == ["1-3"]


async def test_a_write_after_the_log_has_expired_makes_no_ghost(broker: Broker) -> None:
    response_id = await accept(broker)
    async with worker(broker) as writer:
        appender = await take(writer, response_id)
        await broker.commands.delete(log_key(response_id, broker.partitions))
        with pytest.raises(LogGone):
            await write_texts(appender, ["late"])
    assert not await logs_of(broker).exists(response_id)
    with pytest.raises(LogGone):
        await logs_of(broker).read(response_id)


async def test_accepting_twice_is_once_and_another_response_under_the_id_is_refused(broker: Broker) -> None:
    response_id = await accept(broker)
    await accept(broker, response_id)
    assert await ids_of(broker, response_id) == ["0-1", "0-2"]
    other = Accepted(t=0, id=response_id, tenant="b", format="chat", at_ms=1, request=REQUEST)
    with pytest.raises(BadEntry):
        await logs_of(broker).accept(response_id, 1, (other, Queued(t=0, lane="batch")))
    assert await broker.commands.zscore(open_key(partition_of(response_id, broker.partitions)), response_id) == 1


async def test_a_log_that_begins_with_what_a_fork_copied_is_made_at_once_and_an_attempt_goes_on_behind_it(
    broker: Broker,
) -> None:
    i = new_response_id()
    accepted = Accepted(t=0, id=i, tenant="a", format="chat", at_ms=1, request=REQUEST, fork_of=i, fork_after=5002)
    copies = [InProgress(t=0), *(Text(t=0, delta=f"t{n}", tokens=(n,)) for n in range(5000))]
    for _ in range(2):
        await logs_of(broker).accept(i, 1, [accepted, Queued(t=0, lane="interactive"), *copies])
    assert await ids_of(broker, i) == [f"0-{n + 1}" for n in range(5003)]
    async with worker(broker) as writer:
        appender = await take(writer, i, next_number=5004)
        await write_texts(appender, ["!"])
    transcript = transcript_of(await logs_of(broker).read(i))
    assert transcript.text == "".join(f"t{n}" for n in range(5000)) + "!"
    assert transcript.usage.output_tokens == 1
    assert transcript.choices[0].has_own_output


async def test_ending_writes_closing_events_once_and_fences_the_worker(broker: Broker) -> None:
    response_id = await accept(broker)
    finished = FinishedStream(broker.commands)
    ender = Ender(logs_of(broker), finished, name="gateway", boot="g")
    async with worker(broker) as writer:
        appender = await take(writer, response_id)
        for event in opening():
            appender.append(event)
        await write_texts(appender, ["a"])
        transcripts = await asyncio.gather(*(ender.end(response_id, cancellation()) for _ in range(5)))
        with pytest.raises(Fenced):
            await write_texts(appender, ["late"])
    assert {str(t.status) for t in transcripts} == {"cancelled"}
    entries = await logs_of(broker).read(response_id)
    kinds = [type(e.event).__name__ for e in entries]
    assert kinds[-6:] == ["Text", "Fence", "TextDone", "PartDone", "ItemDone", "Cancelled"]
    assert transcript_of(entries).terminal == entries[-1].event


def opening() -> list[LogEvent]:
    from schemas.events import ItemAdded, PartAdded

    return [InProgress(t=1), ItemAdded(t=1), PartAdded(t=1)]


async def test_ending_beside_a_worker_that_keeps_writing_takes_effect(broker: Broker) -> None:
    response_id = await accept(broker)
    ender = Ender(logs_of(broker), FinishedStream(broker.commands), name="gateway", boot="g")
    async with worker(broker) as writer:
        appender = await take(writer, response_id)
        for event in opening():
            appender.append(event)

        async def write() -> None:
            while True:
                appender.append(Text(t=1, delta="x", tokens=(1,)))
                await appender.flushed()

        writing = asyncio.create_task(write())
        transcript = await ender.end(response_id, failure("test", "test"))
        with pytest.raises(Fenced):
            await writing
    entries = await logs_of(broker).read(response_id)
    assert transcript_of(entries).text == transcript.text
    assert [e.id.number for e in entries if not e.id.is_fence] == list(range(1, transcript.next_number))


async def test_ending_what_is_gone_says_so(broker: Broker) -> None:
    ender = Ender(logs_of(broker), FinishedStream(broker.commands), name="gateway", boot="g")
    with pytest.raises(LogGone):
        await ender.end(new_response_id(), cancellation())


async def test_an_archived_log_expires_and_leaves_the_open_index(broker: Broker) -> None:
    response_id = await accept(broker)
    await logs_of(broker).archived({response_id: 1000})
    assert 0 < await broker.commands.ttl(log_key(response_id, broker.partitions)) <= 1000
    assert await broker.commands.zcard(open_key(partition_of(response_id, broker.partitions))) == 0


async def test_finished_entries_are_trimmed_only_when_every_group_has_them(broker: Broker) -> None:
    finished = FinishedStream(broker.commands)
    for group in ("archiver", "jobs"):
        await finished.ensure_group(group)
    for _ in range(300):
        await finished.send(FinishedEntry(id=new_response_id(), status="completed"))
    entries = await finished.read("archiver", "a", 300, client=broker.commands, block_ms=10)
    await finished.acknowledge("archiver", [entry_id for entry_id, _ in entries])
    assert await broker.commands.xlen("oc:finished") == 300
    assert await finished.lag("jobs") == 300
    entries = await finished.read("jobs", "j", 300, client=broker.commands, block_ms=10)
    await finished.acknowledge("jobs", [entry_id for entry_id, _ in entries])
    assert await broker.commands.xlen("oc:finished") < 300
    assert await finished.lag("jobs") == 0


async def test_the_bus_is_trimmed_by_age(broker: Broker) -> None:
    for i in range(300):
        await broker.commands.xadd(bus_key(), {f"{new_response_id()} 1-3": "{}"}, id=f"{i + 1}-0")
    await Bus(broker.commands).trim(30)
    assert await broker.commands.xlen(bus_key()) < 300


async def test_a_flush_larger_than_one_script_call_keeps_the_end_whole(broker: Broker) -> None:
    response_id = await accept(broker)
    async with worker(broker) as writer:
        appender = await take(writer, response_id)
        for event in opening():
            appender.append(event)
        for _ in range(510):
            appender.append(Text(t=1, delta="x"))
        appender.append(Completed(t=2, usage=Usage()))
        await appender.flushed()
    entries = await logs_of(broker).read(response_id)
    assert len(entries) == 2 + 1 + 3 + 510 + 1
    assert isinstance(entries[-1].event, Completed)


async def test_a_cancellation_inside_a_command_is_never_swallowed(broker: Broker) -> None:
    leases = Leases(broker.commands, 1000)

    async def renew_for_ever() -> None:
        while True:
            await leases.renew("w", "boot")

    for turns in range(40):
        task = asyncio.create_task(renew_for_ever())
        for _ in range(turns):
            await asyncio.sleep(0)  # one turn of the loop: cancels at another point each time
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=5)
        assert done, f"still running when cancelled after {turns} turns"
        assert task.cancelled() or isinstance(task.exception(), BrokerError)


async def test_an_unreachable_broker_is_a_broker_error() -> None:
    broker = Broker("unix:///nonexistent/socket", timeout_s=1.0, connections=1)
    with pytest.raises(BrokerError):
        await broker.ping()
    await broker.close()


def test_entry_ids_order_as_redis_orders_them() -> None:
    ids = [EntryId(0, 1), EntryId(0, 2), EntryId(1, 0), EntryId(1, 3), EntryId(2, 0), EntryId(10, 4)]
    assert sorted(reversed(ids)) == ids
    assert all(isinstance(Entry(i, Queued(t=0, lane="batch")), Entry) for i in ids)
