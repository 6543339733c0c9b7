"""An inference worker among others, over Valkey and Redis."""

from __future__ import annotations

import os
import signal

import msgspec
import pytest

from schemas.errors import BrokerError, BrokerTimeout
from schemas.events import Completed, Entry, Failed, Incomplete
from schemas.models import ModelEntry
from streams.connect import Broker
from streams.dead import DeadLetters
from streams.embedded import EmbeddedBroker
from streams.keys import lease_key, log_key
from streams.writer import Writer
from tests.integration.rig import SETTINGS, CrashingEngine, Rig, synthetic, text_of
from tests.waiting import until


async def test_a_request_becomes_a_complete_log_and_its_entry_is_finished(broker: Broker) -> None:
    rig = Rig(broker)
    async with rig.worker():
        prepared = await rig.ask(20)
        transcript = await rig.ended(prepared.id)
        await rig.idle()
    assert transcript.text == text_of(20)
    assert isinstance(transcript.terminal, Incomplete)
    assert transcript.terminal.usage.output_tokens == 20
    assert transcript.attempts == 1


async def test_a_duplicate_request_beside_a_healthy_worker_is_generated_once(broker: Broker) -> None:
    rig = Rig(broker)
    async with rig.worker("w-1"), rig.worker("w-2"):
        prepared = await rig.ask(60)
        await until(lambda: has_text(rig, prepared.id))
        for _ in range(3):
            await rig.queue.send("interactive", prepared.request_entry())
        transcript = await rig.ended(prepared.id)
        await rig.idle()
    assert transcript.attempts == 1
    assert transcript.text == text_of(60)


async def has_text(rig: Rig, response_id: object) -> bool:
    return (await rig.transcript(response_id)).has_output  # type: ignore[arg-type]


async def test_what_a_dead_worker_left_is_continued_from_its_exact_prefix(broker: Broker) -> None:
    rig = Rig(broker)
    await rig.queue.ensure_groups()
    prepared = await rig.ask(30)
    await rig.queue.read("dead-1", "interactive", 1)
    await write_as("dead-1", broker, prepared.id, text_of(7))
    async with rig.worker():
        transcript = await rig.ended(prepared.id)
        await rig.idle()
    assert transcript.text == text_of(30)
    assert transcript.attempts == 2
    assert transcript.terminal is not None
    assert transcript.terminal.usage.output_tokens == 30


async def write_as(consumer: str, broker: Broker, response_id: object, text: str) -> None:
    """What a worker wrote before it died."""
    import asyncio

    from schemas.events import InProgress, ItemAdded, PartAdded, Text

    writer = Writer(broker.commands, consumer=consumer, boot="x", flush_ms=0, bus_max_entries=1000)
    task = asyncio.create_task(writer.run_flushes())
    appender = writer.open(response_id, 1)  # type: ignore[arg-type]
    await appender.take(0)
    appender.next_number = 3
    for event in (InProgress(t=1), ItemAdded(t=1), PartAdded(t=1)):
        appender.append(event)
    for index, delta in enumerate(text.split()):
        appender.append(Text(t=1, delta=f" {delta}", tokens=(index,)))
    await appender.flushed()
    writer.stop()
    await task


@pytest.mark.parametrize("policy", ["restart", "fail"])
async def test_text_that_may_not_be_continued_ends_with_worker_lost(broker: Broker, policy: str) -> None:
    rig = Rig(broker, ModelEntry(name="synthetic", engine="synthetic", takeover=policy))  # type: ignore[arg-type]
    await rig.queue.ensure_groups()
    prepared = await rig.ask(30)
    await rig.queue.read("dead-1", "interactive", 1)
    await write_as("dead-1", broker, prepared.id, text_of(7))
    async with rig.worker():
        transcript = await rig.ended(prepared.id)
    assert isinstance(transcript.terminal, Failed)
    assert transcript.terminal.error.code == "worker_lost"
    assert transcript.text == text_of(7)


async def test_a_broker_away_for_longer_than_a_lease_makes_no_worker_look_dead(
    server: EmbeddedBroker, broker: Broker
) -> None:
    rig = Rig(broker)
    async with rig.worker("w-1", synthetic(50)) as one, rig.worker("w-2", synthetic(50)) as two:
        names = {one.consumer, two.consumer}
        asked = [await rig.ask(200) for _ in range(8)]
        for prepared in asked:
            await until(lambda p=prepared: has_text(rig, p.id))
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        await until(lambda: elapsed(2.5))
        os.kill(server.pid, signal.SIGCONT)
        for prepared in asked:
            transcript = await rig.ended(prepared.id, timeout_s=30)
            assert transcript.text == text_of(200)
            assert transcript.attempts == 1
        assert {one.consumer, two.consumer} == names


def elapsed(seconds: float, started: list[float] = []) -> bool:  # noqa: B006 - one start for each test process
    import time

    started.append(time.monotonic())
    return time.monotonic() - started[0] >= seconds


async def test_a_worker_whose_lease_is_gone_goes_on_under_a_new_name(broker: Broker) -> None:
    rig = Rig(broker)
    async with rig.worker("w-1", synthetic(50)) as worker:
        prepared = await rig.ask(150)
        await until(lambda: has_text(rig, prepared.id))
        old = worker.consumer
        await broker.commands.delete(lease_key(old))
        await until(lambda: worker.consumer != old)
        transcript = await rig.ended(prepared.id)
        await rig.idle()
        assert transcript.text == text_of(150)
        assert transcript.attempts == 2
        assert old not in await rig.queue.holders("interactive")


async def test_entries_held_without_knowing_are_served(broker: Broker) -> None:
    rig = Rig(broker, settings=msgspec.structs.replace(SETTINGS, lease_ms=30_000))  # so that nobody claims
    await rig.queue.ensure_groups()
    prepared = await rig.ask(5)
    [delivery] = await rig.queue.read("lost", "interactive", 1)
    async with rig.worker() as worker:
        # as after a reply of XREADGROUP that was lost: the broker says that the worker holds it
        await rig.queue.transfer(delivery, worker.consumer)
        await rig.ended(prepared.id)
        await rig.idle()


async def test_a_worker_takes_no_more_than_its_free_slots(broker: Broker) -> None:
    rig = Rig(broker)
    async with rig.worker(engine=synthetic(100, capacity=3)) as worker:
        asked = [await rig.ask(40) for _ in range(9)]
        most = 0
        for prepared in asked:
            await rig.ended(prepared.id)
            most = max(most, (await rig.queue.holders("interactive")).get(worker.consumer, 0))
        assert most <= 3
        await rig.idle()


async def test_a_crash_of_the_engine_is_not_the_end_of_the_response(broker: Broker) -> None:
    rig = Rig(broker)
    async with rig.worker(engine=CrashingEngine(tokens=4)):
        prepared = await rig.ask(20)
        transcript = await rig.ended(prepared.id)
    assert transcript.text == text_of(20)
    assert isinstance(transcript.terminal, Completed)
    assert transcript.attempts == 1


async def test_a_request_at_which_the_engine_always_dies_fails_and_the_worker_lives(broker: Broker) -> None:
    rig = Rig(broker)
    async with rig.worker(engine=CrashingEngine(tokens=0)):
        transcript = await rig.ended((await rig.ask(20)).id)
        assert isinstance(transcript.terminal, Failed)
        assert transcript.terminal.error.code == "engine_error"
        await rig.idle()


async def test_poison_that_kills_every_worker_becomes_a_dead_letter_and_a_failed_response(broker: Broker) -> None:
    rig = Rig(broker)
    await rig.queue.ensure_groups()
    prepared = await rig.ask(20)
    await rig.queue.read("dead-0", "interactive", 1)
    for attempt in range(1, SETTINGS.max_attempts + 1):
        fence = {"event": f'{{"type":"fence","t":1,"consumer":"dead-{attempt}","boot":"b"}}'}
        await broker.commands.xadd(log_key(prepared.id), fence, id=f"{attempt}-0")
    async with rig.worker():
        transcript = await rig.ended(prepared.id)
        await rig.idle()
    assert isinstance(transcript.terminal, Failed)
    assert transcript.terminal.error.code == "max_attempts_exceeded"
    [stored] = await DeadLetters(broker.commands).newest(10)
    assert stored.letter.reason == "max_attempts_exceeded"
    assert stored.request() == prepared.request_entry()


async def test_a_broker_error_while_taking_is_not_the_end_of_the_worker(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(broker)
    async with rig.worker() as worker:
        read, failures = worker._logs.read, [BrokerTimeout(), BrokerError()]

        async def read_badly(*arguments: object) -> list[Entry]:
            if failures:
                raise failures.pop()
            return await read(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(worker._logs, "read", read_badly)
        transcript = await rig.ended((await rig.ask(5)).id)
        await rig.idle()
    assert not failures
    assert transcript.text == text_of(5)


async def test_a_draining_worker_hands_over_without_counting_an_attempt(broker: Broker) -> None:
    slow = msgspec.structs.replace(SETTINGS, lease_ms=30_000)
    rig = Rig(broker, settings=slow)
    async with rig.worker("w-1", synthetic(50)):
        prepared = await rig.ask(100)
        await until(lambda: has_text(rig, prepared.id))
    async with rig.worker("w-2", synthetic(500)):
        transcript = await rig.ended(prepared.id, timeout_s=10)  # far less than a lease
        await rig.idle()
    assert transcript.text == text_of(100)
    assert transcript.empty_attempts == 0


async def test_a_response_past_its_deadline_is_ended(broker: Broker) -> None:
    import time

    rig = Rig(broker)
    async with rig.worker(engine=synthetic(20)):
        prepared = await rig.ask(1000, deadline_at_ms=int(time.time() * 1000) + 700)
        transcript = await rig.ended(prepared.id)
    assert isinstance(transcript.terminal, Failed)
    assert transcript.terminal.error.code == "deadline_exceeded"
    assert transcript.has_output


async def test_a_request_without_a_log_is_a_dead_letter_and_makes_no_ghost(broker: Broker) -> None:
    rig = Rig(broker)
    prepared = rig.prepare()
    async with rig.worker():
        await rig.queue.send("interactive", prepared.request_entry())
        await rig.idle()
    assert not await rig.logs.exists(prepared.id)
    assert [stored.letter.reason for stored in await DeadLetters(broker.commands).newest(10)] == ["log_gone"]


async def test_a_worker_survives_a_lost_group_and_serves_what_waited(broker: Broker) -> None:
    rig = Rig(broker)
    async with rig.worker():
        await rig.ended((await rig.ask(3)).id)
        await broker.commands.delete("oc:requests:{synthetic:interactive}")
        transcript = await rig.ended((await rig.ask(3)).id)
    assert transcript.text == text_of(3)
