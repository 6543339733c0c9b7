"""What the archive promises, over SQLite here and any MySQL by OPENCHAT_TEST_MYSQL_URL."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import text

from archive.connect import create_engine, open_archive
from archive.migrate import migrate
from archive.store import Archive
from schemas.archived import ArchivedResponse, StoredEntry
from schemas.errors import ArchiveError, SettingsError
from schemas.ids import new_response_id

MYSQL_URL = os.environ.get("OPENCHAT_TEST_MYSQL_URL", "")


@pytest.fixture(params=["sqlite", *(["mysql"] if MYSQL_URL else [])])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url = MYSQL_URL if request.param == "mysql" else f"sqlite+aiosqlite:///{tmp_path / 'a.sqlite3'}"
    await migrate(url, print)
    return url


@pytest.fixture
async def archive(url: str) -> AsyncIterator[Archive]:
    async with open_archive(url) as archive:
        yield archive


def response(**changes: object) -> ArchivedResponse:
    whole = ArchivedResponse(
        id=new_response_id(),
        tenant="a",
        format="chat",
        model="m",
        status="completed",
        accepted_at_ms=1_700_000_000_123,
        first_text_ms=5,
        duration_ms=100,
        attempts=2,
        input_tokens=3,
        output_tokens=4,
        cached_tokens=0,
        entries=[StoredEntry("0-1", '{"type":"accepted"}'), StoredEntry("1-0", '{"é":"🙂\\u0000"}')],
    )
    return msgspec.structs.replace(whole, **changes)


async def test_what_is_written_is_read_back_exactly(archive: Archive) -> None:
    big = response(entries=[StoredEntry(f"1-{i}", f'{{"t":{i}}}') for i in range(5000)])
    small = response(first_text_ms=None, error_code="x")
    await archive.insert([big, small])
    assert await archive.read_log(big.id) == big.entries
    assert await archive.read_log(small.id) == small.entries


async def test_an_unknown_id_is_none(archive: Archive) -> None:
    assert await archive.read_log(new_response_id()) is None
    await archive.insert([])


async def test_a_row_that_is_there_wins(archive: Archive) -> None:
    first, second = response(), response()
    await archive.insert([first])
    changed = msgspec.structs.replace(first, entries=[StoredEntry("9-1", "{}")], status="failed")
    await archive.insert([changed, second])
    assert await archive.read_log(first.id) == first.entries
    assert await archive.read_log(second.id) == second.entries


async def test_several_archivers_may_write_the_same_batch_at_once(url: str, archive: Archive) -> None:
    batch = [response() for _ in range(50)]

    async def write(part: list[ArchivedResponse]) -> None:
        async with open_archive(url) as own:
            await own.insert(part)

    await asyncio.gather(*(write(batch[i : i + 30]) for i in (0, 10, 20, 0)))
    for one in batch:
        assert await archive.read_log(one.id) == one.entries


async def test_a_batch_is_written_whole_or_not_at_all(archive: Archive) -> None:
    good, bad = response(), response(tenant=None)
    with pytest.raises(ArchiveError):
        await archive.insert([good, bad])
    assert await archive.read_log(good.id) is None


async def test_rows_survive_reopening(url: str) -> None:
    one = response()
    async with open_archive(url) as archive:
        await archive.insert([one])
    async with open_archive(url) as archive:
        assert await archive.read_log(one.id) == one.entries
        await archive.check()


async def test_a_database_without_a_schema_is_not_ready(tmp_path: Path) -> None:
    async with open_archive(f"sqlite+aiosqlite:///{tmp_path / 'empty.sqlite3'}") as archive:
        with pytest.raises(ArchiveError):
            await archive.check()
        with pytest.raises(ArchiveError):
            await archive.insert([response()])


@pytest.mark.parametrize("url", ["", "nonsense", "postgresql://x/y", "sqlite:///x"])
def test_a_url_that_can_not_be_used_says_what_to_do(url: str) -> None:
    with pytest.raises(SettingsError, match="sqlite"):
        create_engine(url)


async def test_deleting_a_response_deletes_its_log(url: str, archive: Archive) -> None:
    one = response()
    await archive.insert([one])
    engine = create_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM responses"))
    await engine.dispose()
    assert await archive.read_log(one.id) is None
