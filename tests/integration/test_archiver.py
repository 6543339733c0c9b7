"""The archiver while its archive is away for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from archive.connect import open_archive
from archive.migrate import migrate
from archive.store import Archive
from consumers.archiver import Archiver
from schemas.archived import ArchivedResponse
from schemas.errors import ArchiveError
from streams.connect import Broker
from streams.finished import FinishedStream
from tests.integration.rig import SETTINGS, Rig
from tests.waiting import until


class FailingArchive:
    """A real archive that is away at first."""

    def __init__(self, archive: Archive, failures: int) -> None:
        self._archive = archive
        self.failures = failures

    async def insert(self, batch: Sequence[ArchivedResponse]) -> None:
        if self.failures:
            self.failures -= 1
            raise ArchiveError("away, says the test")
        await self._archive.insert(batch)


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[Archive]:
    url = f"sqlite+aiosqlite:///{tmp_path / 'a.sqlite3'}"
    await migrate(url, print)
    async with open_archive(url) as archive:
        yield archive


@asynccontextmanager
async def archiving(broker: Broker, archive: FailingArchive | Archive) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(Archiver(SETTINGS, broker, archive, name="a").run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def nothing_is_left(broker: Broker) -> bool:
    return await FinishedStream(broker.commands).lag("archiver") == 0


async def test_what_was_read_is_written_as_soon_as_the_archive_is_back(broker: Broker, archive: Archive) -> None:
    rig = Rig(broker)
    asked = [await rig.ask(3) for _ in range(5)]
    async with rig.worker():
        await rig.idle()
    failing = FailingArchive(archive, failures=3)
    async with archiving(broker, failing):
        await until(lambda: nothing_is_left(broker), timeout_s=10, what="an empty stream")
    assert failing.failures == 0
    assert all([await archive.read_log(prepared.id) for prepared in asked])
