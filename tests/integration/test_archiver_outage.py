"""Traffic while the database is dead, or locked by somebody else: it streams on, and nothing is lost."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from archive import connect
from archive.connect import open_archive
from archive.migrate import migrate
from archive.store import Archive
from formats.transcript import transcript_of
from responses.accept import Prepared
from streams.connect import Broker
from streams.dead import DeadLetters
from streams.finished import FinishedStream
from streams.logs import decode_entry
from tests.contract.test_archive import in_database
from tests.database import MariaDB
from tests.integration.rig import Rig, synthetic, text_of
from tests.integration.test_archiver import archiving, nothing_is_left
from tests.waiting import until

TOKENS = 10


@pytest.fixture(params=["valkey"])
def kind(request: pytest.FixtureRequest) -> str:
    """One broker: it is the database that dies."""
    return str(request.param)


async def stream(rig: Rig, count: int) -> list[Prepared]:
    """So many responses, each seen to its end."""
    asked = [await rig.ask(TOKENS) for _ in range(count)]
    for prepared in asked:
        assert (await rig.ended(prepared.id)).text == text_of(TOKENS)
    return asked


async def lag(broker: Broker) -> int:
    return await FinishedStream(broker.commands).lag("archiver")


def failures(caplog: pytest.LogCaptureFixture) -> int:
    return sum("archiving_failed" in record.message for record in caplog.records)


async def check_all_are_archived_once(url: str, archive: Archive, broker: Broker, asked: list[Prepared]) -> None:
    rows = await in_database(url, lambda c: c.exec_driver_sql("SELECT COUNT(*) FROM responses"))
    assert rows.scalar() == len(asked)
    for prepared in asked:
        stored = await archive.read_log(prepared.id)
        assert stored is not None
        assert transcript_of(decode_entry(e.id, e.event.encode()) for e in stored).text == text_of(TOKENS)
    assert await DeadLetters(broker.commands).count() == 0


async def test_a_database_that_is_killed_in_the_middle_of_traffic_costs_nothing(
    broker: Broker, own_server: MariaDB, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    await asyncio.to_thread(own_server.start)
    url = await own_server.database()
    await migrate(url, print)
    rig = Rig(broker)
    async with open_archive(url) as archive, rig.worker(engine=synthetic(200)), archiving(broker, archive):
        asked = await stream(rig, 10)
        asked += [await rig.ask(TOKENS) for _ in range(10)]
        await until(lambda: is_stored(archive, asked[0]), what="the first row")
        own_server.stop()
        for prepared in asked:
            assert (await rig.ended(prepared.id)).text == text_of(TOKENS)
        asked += await stream(rig, 10)
        first = await lag(broker)
        asked += await stream(rig, 10)
        assert await lag(broker) == first + 10 >= 20
        await until(lambda: failures(caplog) >= 3, what="an archiver that keeps trying")
        await asyncio.to_thread(own_server.start)
        asked += await stream(rig, 10)
        await until(lambda: nothing_is_left(broker), what="an archiver that has caught up")
        assert await rig.logs.count_open() == 0
        await check_all_are_archived_once(url, archive, broker, asked)


async def is_stored(archive: Archive, prepared: Prepared) -> bool:
    return await archive.exists(prepared.id)


_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
connection.rollback()
"""


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[Callable[[], None]]:
    """Another process has the file for itself, until it is let go."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _LOCK, str(path), stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"locked\n"
    try:
        yield process.stdin.close
    finally:
        process.stdin.close()
        await process.wait()


@pytest.mark.parametrize("patience_s", [15.0, 0.2], ids=["waits", "gives up"])
async def test_a_file_that_another_process_has_locked_costs_nothing(
    broker: Broker, tmp_path: Path, patience_s: float, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`patience_s`: how long SQLite itself waits, by default longer than the lock is held here."""
    caplog.set_level(logging.WARNING)
    monkeypatch.setitem(connect._DRIVERS, "sqlite+aiosqlite", {"timeout": patience_s})  # type: ignore[index]
    path = tmp_path / "a.sqlite3"
    url = f"sqlite+aiosqlite:///{path}"
    await migrate(url, print)
    rig = Rig(broker)
    loop = asyncio.get_running_loop()
    async with open_archive(url) as archive, rig.worker(engine=synthetic(200)), archiving(broker, archive):
        asked = await stream(rig, 5)
        await until(lambda: nothing_is_left(broker))
        async with locked(path) as let_go:
            until_s = loop.time() + 4
            while loop.time() < until_s:
                asked += await stream(rig, 5)
            assert await lag(broker) == len(asked) - 5
            let_go()
            await until(lambda: nothing_is_left(broker), what="an archiver that has caught up")
        assert (failures(caplog) > 0) == (patience_s < 1)
        await check_all_are_archived_once(url, archive, broker, asked)
