"""Several archivers, each a process: they share the work, and the death of one costs nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import redis.exceptions

from archive.connect import open_archive
from archive.migrate import migrate
from consumers import archiver
from streams.connect import Broker
from streams.embedded import EmbeddedBroker
from streams.finished import FinishedStream
from streams.keys import ARCHIVER_GROUP, FINISHED
from tests.contract.test_archive import in_database
from tests.integration.rig import Rig, synthetic
from tests.integration.test_archiver import archiving, nothing_is_left
from tests.ports import free_ports
from tests.waiting import until

ROOT = Path(__file__).parents[2]
RESPONSES = 120
BATCH = 5


@pytest.fixture(params=["valkey"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def archiver_process(**settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`openchat archiver`; it is not spared at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "openchat", "archiver"),
        cwd=ROOT,
        env=os.environ | {f"OPENCHAT_{name.upper()}": value for name, value in settings.items()},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture(params=["sqlite", "mariadb"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "mariadb":
        url = await request.getfixturevalue("mariadb").database()
    else:
        url = f"sqlite+aiosqlite:///{tmp_path / 'a.sqlite3'}"
    await migrate(url, print)
    return str(url)


async def consumers(broker: Broker) -> int:
    try:
        return len(await broker.commands.xinfo_consumers(FINISHED, ARCHIVER_GROUP))
    except redis.exceptions.ResponseError:
        return 0  # not even a group


async def count(url: str, query: str) -> int:
    return int((await in_database(url, lambda c: c.exec_driver_sql(query))).scalar_one())


async def test_two_share_the_work_and_what_a_killed_one_held_is_done_by_the_other(
    server: EmbeddedBroker, broker: Broker, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"redis_url": server.url, "database_url": url, "archive_batch": str(BATCH)}
    rig = Rig(broker)
    async with rig.worker(engine=synthetic(2000, capacity=64)), archiver_process(**settings) as first:
        async with archiver_process(**settings):
            asked = [await rig.ask(20) for _ in range(RESPONSES // 2)]
            for prepared in asked:
                await rig.ended(prepared.id)

            async def both_are_there() -> bool:
                return await consumers(broker) == 2

            await until(both_are_there, what="two archivers")
            await until(lambda: nothing_is_left(broker), what="an empty stream")
            first.send_signal(signal.SIGSTOP)
            asked += [await rig.ask(20) for _ in range(RESPONSES // 2)]
            for prepared in asked:
                await rig.ended(prepared.id)

            async def the_rest_is_done() -> bool:
                finished = FinishedStream(broker.commands)
                return await finished.added() >= RESPONSES and await finished.lag(ARCHIVER_GROUP) <= BATCH

            await until(the_rest_is_done, what="one archiver that does what the other does not")
            first.kill()
            await first.wait()
        # a third one claims at its start what the dead one may have held, without waiting half a minute for it
        monkeypatch.setattr(archiver, "_CLAIM_IDLE_MS", 0)
        async with open_archive(url) as archive, archiving(broker, archive):
            await until(lambda: nothing_is_left(broker), what="an empty stream")
        async with open_archive(url) as archive:
            assert all([await archive.read_log(prepared.id) for prepared in asked])
    assert await count(url, "SELECT COUNT(*) FROM responses") == RESPONSES
    assert await count(url, "SELECT SUM(requests) FROM usage_hours") == RESPONSES


async def test_an_archiver_shows_how_far_behind_it_is(server: EmbeddedBroker, broker: Broker, tmp_path: Path) -> None:
    url, port = f"sqlite+aiosqlite:///{tmp_path / 'a.sqlite3'}", free_ports(1)
    rig = Rig(broker)
    async with rig.worker(engine=synthetic(2000)):
        for prepared in [await rig.ask(3) for _ in range(7)]:
            await rig.ended(prepared.id)
        await rig.idle()
    settings = {"redis_url": server.url, "database_url": url, "metrics_port": str(port)}
    async with archiver_process(**settings), httpx.AsyncClient() as client:

        async def shows(line: str) -> bool:
            try:
                return line in (await client.get(f"http://127.0.0.1:{port}/metrics")).text
            except httpx.TransportError:
                return False

        await until(lambda: shows("openchat_archive_lag 7.0"), what="a lag")  # there are no tables
        await until(lambda: shows("openchat_archived_total 0.0"), what="nothing archived")
        await migrate(url, print)
        await until(lambda: shows("openchat_archive_lag 0.0"), what="no lag")
        await until(lambda: shows("openchat_archived_total 7.0"), what="all archived")
