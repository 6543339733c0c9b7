"""A failover that takes a fence: found by the state machine, in their smallest form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from formats.transcript import transcript_of
from ingress.tails import Tail
from responses.end import Ender, cancellation
from schemas.errors import Fenced, StreamDiverged
from schemas.events import Accepted, Queued, Text
from schemas.ids import ResponseId, new_response_id
from schemas.requests import GenerationRequest, Message
from streams.connect import Broker
from streams.finished import FinishedStream
from streams.logs import ResponseLogs
from streams.writer import LogAppender
from streams.writers import Writers


def logs_of(broker: Broker) -> ResponseLogs:
    return ResponseLogs(broker.commands, bus_max_entries=1000, partitions=broker.partitions)


async def accept(broker: Broker) -> ResponseId:
    i = new_response_id()
    request = GenerationRequest(model="m", messages=[Message("user", "hi")])
    accepted = Accepted(t=0, id=i, tenant="a", format="chat", at_ms=1, request=request)
    await logs_of(broker).accept(i, 1, (accepted, Queued(t=0, lane="interactive")))
    return i


@asynccontextmanager
async def worker(broker: Broker, name: str) -> AsyncIterator[Writers]:
    writers = Writers(
        broker.commands, partitions=1, consumer=name, boot=f"boot-{name}", flush_ms=0, bus_max_entries=1000
    )
    task = asyncio.create_task(writers.run_flushes())
    try:
        yield writers
    finally:
        writers.stop()
        await task


async def take(broker: Broker, writers: Writers, i: ResponseId, attempt: int) -> LogAppender:
    appender = writers.open(i, attempt)
    await appender.take(0)
    log = await logs_of(broker).read(i)
    appender.next_number = transcript_of(log).next_number
    appender.taken(log)
    return appender


async def write(appender: LogAppender, *texts: str) -> None:
    for text in texts:
        appender.append(Text(t=0, delta=text))
    await appender.flushed()


async def dump(broker: Broker) -> dict[bytes, bytes]:
    return {key: await broker.commands.dump(key) for key in await broker.commands.keys("*")}


async def fail_over(broker: Broker, replica: dict[bytes, bytes]) -> None:
    await broker.commands.flushdb()
    for key, value in replica.items():
        await broker.commands.restore(key, 0, value)


async def test_put_back_behind_a_lost_prefix_leaves_no_hole(broker: Broker) -> None:
    """A writes "a", dies; B takes over, writes "c"; a failover loses "b" of A and all of B; B puts back."""
    i = await accept(broker)
    async with worker(broker, "A") as a, worker(broker, "B") as b:
        old = await take(broker, a, i, 1)
        await write(old, "a")
        replica = await dump(broker)
        await write(old, "b")
        new = await take(broker, b, i, 2)
        await write(new, "c")
        await fail_over(broker, replica)
        await write(new, "d")
    assert transcript_of(await logs_of(broker).read(i)).text == "abcd"


async def test_put_back_behind_a_zombies_write_repeats_no_sequence(broker: Broker) -> None:
    """B took over from A, which is alive and does not know; a failover loses B's fence; A writes; B puts back."""
    i = await accept(broker)
    async with worker(broker, "A") as a, worker(broker, "B") as b:
        old = await take(broker, a, i, 1)
        await write(old, "a")
        replica = await dump(broker)
        new = await take(broker, b, i, 2)
        await write(new, "b")
        await fail_over(broker, replica)
        await write(old, "A goes on")
        with pytest.raises(Fenced):
            await write(new, "c")
    assert transcript_of(await logs_of(broker).read(i)).text == "aA goes on"


async def test_a_number_that_a_failover_lost_shows_no_mixture(broker: Broker) -> None:
    """A shows text and dies with the broker's machine; B takes the same number and writes other text."""
    i = await accept(broker)
    tail = Tail(i, await logs_of(broker).read(i))
    async with worker(broker, "A") as a, worker(broker, "B") as b:
        replica = await dump(broker)
        await write(await take(broker, a, i, 1), "one", "two")
        tail.add(await logs_of(broker).read(i, tail.last_id))
        await fail_over(broker, replica)  # and A is dead
        await write(await take(broker, b, i, 1), "eins", "zwei", "drei")
        tail.add(await logs_of(broker).read(i, from_=tail.entries[-1].id))
    shown = "".join(e.event.delta for e in tail.entries if isinstance(e.event, Text))
    assert isinstance(tail.error, StreamDiverged) or shown == "einszweidrei", shown


async def test_an_end_under_a_lost_number_reaches_the_reader(broker: Broker) -> None:
    """As before, but what uses the number again is a cancel: the reader hears of no end, for ever."""
    i = await accept(broker)
    tail = Tail(i, await logs_of(broker).read(i))
    ender = Ender(logs_of(broker), FinishedStream(broker.commands), name="g", boot="g")
    async with worker(broker, "A") as a:
        replica = await dump(broker)
        await write(await take(broker, a, i, 1), "one")
        tail.add(await logs_of(broker).read(i, tail.last_id))
        await fail_over(broker, replica)
        await ender.end(i, cancellation())
    tail.add(await logs_of(broker).read(i, from_=tail.entries[-1].id))
    assert isinstance(tail.error, StreamDiverged)
