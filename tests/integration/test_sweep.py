"""What nobody looks after any more is found and ended."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from archive.connect import open_archive
from archive.migrate import migrate
from archive.store import Archive
from responses.end import Ender
from responses.sweep import Sweeper, Swept
from schemas.events import Failed
from streams.connect import Broker
from streams.finished import FinishedStream
from streams.keys import ARCHIVER_GROUP, FINISHED, open_key, unqueued_key
from tests.integration.rig import Rig, text_of
from tests.waiting import until


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[Archive]:
    url = f"sqlite+aiosqlite:///{tmp_path / 'a.sqlite3'}"
    await migrate(url, print)
    async with open_archive(url) as archive:
        yield archive


def sweeper(rig: Rig, archive: Archive) -> Sweeper:
    """One for which everything is old at once."""
    finished = FinishedStream(rig.broker.commands)
    ender = Ender(rig.logs, finished, name="sweep", boot="s")
    return Sweeper(rig.logs, archive, finished, ender, lambda _: rig.queue, unqueued_ms=-1000, old_ms=-1000)


async def test_a_response_whose_gateway_died_before_it_queued_it_is_ended_once(
    broker: Broker, archive: Archive
) -> None:
    rig = Rig(broker)
    orphan = rig.prepare()
    await rig.logs.accept(orphan.id, orphan.accepted.at_ms, (orphan.accepted, orphan.queued))
    assert await sweeper(rig, archive).sweep() == Swept(never_queued=1)
    assert (await sweeper(rig, archive).sweep()).never_queued == 0
    transcript = await rig.transcript(orphan.id)
    assert isinstance(transcript.terminal, Failed)
    assert transcript.terminal.error.code == "never_queued"
    assert await FinishedStream(broker.commands).lag(ARCHIVER_GROUP) == 1


async def test_what_is_queued_or_running_is_left_alone_also_where_the_index_does_not_know(
    broker: Broker, archive: Archive
) -> None:
    rig = Rig(broker)
    waiting = await rig.ask(20)
    assert await broker.commands.zcard(unqueued_key()) == 1, "its gateway died before it could say so"
    assert await sweeper(rig, archive).sweep() == Swept()
    async with rig.worker():
        assert (await rig.ended(waiting.id)).text == text_of(20)
    assert not await broker.commands.zcard(unqueued_key())


async def test_the_index_of_what_is_not_queued_empties_itself(broker: Broker) -> None:
    rig = Rig(broker)
    task = asyncio.create_task(rig.intake.run_index(every_s=0.05))
    await rig.ask(20)
    await until(lambda: is_empty(broker), what="an empty index")
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def is_empty(broker: Broker) -> bool:
    return not await broker.commands.zcard(unqueued_key())


async def test_a_response_past_its_deadline_that_nobody_ends_is_ended(broker: Broker, archive: Archive) -> None:
    rig = Rig(broker)
    now_ms = int(time.time() * 1000)
    late = await rig.ask(20, deadline_at_ms=now_ms - 60_000)
    in_time = await rig.ask(20, deadline_at_ms=now_ms + 60_000)
    without = await rig.ask(20)
    assert await sweeper(rig, archive).sweep() == Swept(overdue=1)
    transcript = await rig.transcript(late.id)
    assert isinstance(transcript.terminal, Failed)
    assert transcript.terminal.error.code == "deadline_exceeded"
    for prepared in (in_time, without):
        assert (await rig.transcript(prepared.id)).terminal is None


async def test_an_ended_response_that_the_archiver_never_heard_of_is_told_to_it(
    broker: Broker, archive: Archive
) -> None:
    rig = Rig(broker)
    async with rig.worker():
        prepared = await rig.ask(5)
        await rig.ended(prepared.id)
        await rig.idle()
    await broker.commands.delete(FINISHED)
    assert await sweeper(rig, archive).sweep() == Swept(not_archived=1)
    assert await FinishedStream(broker.commands).lag(ARCHIVER_GROUP) == 1
    assert await sweeper(rig, archive).sweep() == Swept(), "the archiver has not come to it yet"


async def test_a_response_that_the_broker_lost_leaves_the_index(broker: Broker, archive: Archive) -> None:
    rig = Rig(broker)
    lost = await rig.ask(20)
    await rig.logs.remove(lost.id)
    await broker.commands.zadd(open_key(), {lost.id: 1})
    assert await sweeper(rig, archive).sweep() == Swept(lost=1)
    assert await sweeper(rig, archive).sweep() == Swept()
