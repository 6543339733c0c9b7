"""What the archive promises, over SQLite, MariaDB, and any MySQL by OPENCHAT_TEST_MYSQL_URL."""

from __future__ import annotations

import asyncio
import datetime
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from sqlalchemy import delete, select, text
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.asyncio import AsyncConnection

from archive import connect, session, store
from archive.connect import create_engine, open_archive
from archive.migrate import migrate
from archive.store import Archive, insert_ignoring
from archive.tables import response_logs, responses
from schemas.archived import ArchivedResponse, StoredEntry
from schemas.errors import ArchiveError, SettingsError
from schemas.ids import ResponseId, id_to_bytes, new_response_id

MYSQL_URL = os.environ.get("OPENCHAT_TEST_MYSQL_URL", "")
T = TypeVar("T")


@pytest.fixture(params=["sqlite", "mariadb", *(["mysql"] if MYSQL_URL else [])])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database at the newest schema; the one by URL is shared, so tests look only at ids of their own."""
    match request.param:
        case "mariadb":
            url = await request.getfixturevalue("mariadb").database()
        case "mysql":
            url = MYSQL_URL
        case _:
            url = f"sqlite+aiosqlite:///{tmp_path / 'a.sqlite3'}"
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


async def in_database(url: str, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    engine = create_engine(url)
    try:
        async with engine.begin() as connection:
            return await work(connection)
    finally:
        await engine.dispose()


async def row_of(url: str, response_id: ResponseId) -> dict[str, Any] | None:
    async def work(connection: AsyncConnection) -> dict[str, Any] | None:
        query = select(responses).where(responses.c.id == id_to_bytes(response_id))
        row = (await connection.execute(query)).mappings().one_or_none()
        return dict(row) if row else None

    return await in_database(url, work)


async def test_what_is_written_is_read_back_exactly(archive: Archive) -> None:
    big = response(entries=[StoredEntry(f"1-{i}", f'{{"t":{i}}}') for i in range(5000)])
    small = response(first_text_ms=None, error_code="x")
    empty = response(entries=[])
    await archive.insert([big, small, empty])
    for one in (big, small, empty):
        assert await archive.read_log(one.id) == one.entries
        assert await archive.exists(one.id)


async def test_the_columns_are_what_was_given_and_times_are_utc(url: str, archive: Archive) -> None:
    one = response(model="模型 🙂", first_text_ms=None, error_code="worker_lost", status="failed")
    await archive.insert([one])
    row = await row_of(url, one.id) or {}
    write_id = row["write_id"]
    assert len(write_id) == 8
    assert row == {
        "id": id_to_bytes(one.id),
        "tenant": "a",
        "format": "chat",
        "model": "模型 🙂",
        "status": "failed",
        "accepted_at": datetime.datetime(2023, 11, 14, 22, 13, 20, 123_000),
        "first_text_ms": None,
        "duration_ms": 100,
        "attempts": 2,
        "input_tokens": 3,
        "output_tokens": 4,
        "cached_tokens": 0,
        "error_code": "worker_lost",
        "engine": "",
        "finish_reason": None,
        "reasoning_tokens": 0,
        "cost_micros": None,
        "error_message": None,
        "parent": None,
        "retry_of": None,
        "conversation": None,
        "key_id": None,
        "lane": "interactive",
        "is_stored": True,
        "ended_at": datetime.datetime(2023, 11, 14, 22, 13, 20, 223_000),
        "write_id": write_id,
        "metadata": None,
    }


async def test_an_unknown_id_is_none(archive: Archive) -> None:
    assert await archive.read_log(new_response_id()) is None
    assert not await archive.exists(new_response_id())


async def test_an_empty_batch_does_nothing(archive: Archive) -> None:
    await archive.insert([])


async def test_a_row_that_is_there_wins(url: str, archive: Archive) -> None:
    first, second = response(), response()
    await archive.insert([first])
    before = await row_of(url, first.id)
    changed = msgspec.structs.replace(first, entries=[StoredEntry("9-1", "{}")], status="failed")
    await archive.insert([changed, second])
    await archive.insert([changed, second])
    assert await row_of(url, first.id) == before
    assert await archive.read_log(first.id) == first.entries
    assert await archive.read_log(second.id) == second.entries


async def test_of_two_with_one_id_in_a_batch_the_first_wins(url: str, archive: Archive) -> None:
    first = response()
    await archive.insert([first, msgspec.structs.replace(first, entries=[], status="failed")])
    assert await archive.read_log(first.id) == first.entries
    assert (await row_of(url, first.id) or {})["status"] == "completed"


async def test_a_row_without_a_log_stays_without(url: str, archive: Archive) -> None:
    one, other = response(), response()
    await archive.insert([one])
    await in_database(
        url, lambda c: c.execute(delete(response_logs).where(response_logs.c.response_id == id_to_bytes(one.id)))
    )
    await archive.insert([one, other])
    assert await archive.read_log(one.id) is None
    assert await archive.exists(one.id)
    assert await archive.read_log(other.id) == other.entries


async def test_a_row_that_comes_in_meanwhile_wins_and_gets_no_log(
    url: str, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = response(), response()
    look = store._stored

    async def look_and_be_overtaken(connection: AsyncConnection, ids: list[bytes]) -> dict[bytes, bytes | None]:
        found = await look(connection, ids)
        monkeypatch.setattr(store, "_stored", look)
        deleted = {**store._row(one, b"another."), "status": "deleted"}
        await in_database(url, lambda c: c.execute(responses.insert(), [deleted]))
        return found

    monkeypatch.setattr(store, "_stored", look_and_be_overtaken)
    await archive.insert([one, other])
    assert await archive.read_log(one.id) is None
    assert (await row_of(url, one.id) or {})["status"] == "deleted"
    assert await archive.read_log(other.id) == other.entries


async def test_several_archivers_may_write_overlapping_batches_at_once(url: str, archive: Archive) -> None:
    batch = [response() for _ in range(50)]

    async def write(part: list[ArchivedResponse]) -> None:
        async with open_archive(url) as own:
            await own.insert(part)

    parts = [batch[i : i + 30] for i in (0, 10, 20, 0)]
    await asyncio.gather(*(write(part) for part in (*parts, parts[1][::-1])))
    for one in batch:
        assert await archive.read_log(one.id) == one.entries


async def test_one_archive_may_be_used_by_many_tasks_at_once(archive: Archive) -> None:
    batches = [[response() for _ in range(5)] for _ in range(20)]
    await asyncio.gather(*map(archive.insert, batches))
    logs = await asyncio.gather(*(archive.read_log(one.id) for batch in batches for one in batch))
    assert logs == [one.entries for batch in batches for one in batch]


@pytest.mark.parametrize("bad", [{"tenant": None}, {"entries": [StoredEntry("0-1", "\ud800")]}], ids=["row", "log"])
async def test_a_batch_is_written_whole_or_not_at_all(archive: Archive, bad: dict[str, object]) -> None:
    good = response()
    with pytest.raises(ArchiveError):
        await archive.insert([good, response(**bad)])
    assert not await archive.exists(good.id)
    await archive.insert([good])
    assert await archive.read_log(good.id) == good.entries


async def test_a_log_that_can_not_be_written_takes_its_row_back(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = response()
    with monkeypatch.context() as patch:
        patch.setattr(store, "_log_row", lambda one: {"response_id": id_to_bytes(one.id), "codec": 1, "entries": None})
        with pytest.raises(ArchiveError):
            await archive.insert([good])
    assert not await archive.exists(good.id)


async def test_an_error_does_not_repeat_what_people_wrote(archive: Archive) -> None:
    with pytest.raises(ArchiveError) as caught:
        await archive.insert([response(model="a secret", tenant=None)])
    assert caught.value.__cause__ is not None
    assert "a secret" not in f"{caught.value} {caught.value.__cause__}"


async def test_rows_survive_reopening(url: str) -> None:
    one = response()
    async with open_archive(url) as archive:
        await archive.insert([one])
    async with open_archive(url) as archive:
        assert await archive.read_log(one.id) == one.entries
        await archive.check()


async def test_deleting_a_response_deletes_its_log(url: str, archive: Archive) -> None:
    one = response()
    await archive.insert([one])
    await in_database(url, lambda c: c.execute(delete(responses).where(responses.c.id == id_to_bytes(one.id))))
    assert await archive.read_log(one.id) is None


async def test_a_log_that_is_damaged_is_an_archive_error(url: str, archive: Archive) -> None:
    one = response()
    await archive.insert([one])
    damage = response_logs.update().where(response_logs.c.response_id == id_to_bytes(one.id)).values(entries=b"x")
    await in_database(url, lambda c: c.execute(damage))
    with pytest.raises(ArchiveError, match="can not be read"):
        await archive.read_log(one.id)


async def test_a_database_without_a_schema_is_not_ready(tmp_path: Path) -> None:
    async with open_archive(f"sqlite+aiosqlite:///{tmp_path / 'empty.sqlite3'}") as archive:
        with pytest.raises(ArchiveError, match="openchat migrate"):
            await archive.check()
        with pytest.raises(ArchiveError):
            await archive.insert([response()])
        with pytest.raises(ArchiveError):
            await archive.read_log(new_response_id())


async def test_a_file_that_is_no_database_is_an_archive_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no database, but long enough to be taken for one " * 100)
    async with open_archive(f"sqlite+aiosqlite:///{tmp_path / 'a.txt'}") as archive:
        with pytest.raises(ArchiveError, match="not a database"):
            await archive.check()


async def test_a_database_that_stays_locked_is_an_archive_error_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connect._DRIVERS, "sqlite+aiosqlite", {"timeout": 0.02})  # type: ignore[index]
    url = f"sqlite+aiosqlite:///{tmp_path / 'a.sqlite3'}"
    await migrate(url, print)
    one = response()
    async with open_archive(url) as archive:

        async def lock_and_try(connection: AsyncConnection) -> None:
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
            assert not await archive.exists(one.id)  # readers do not wait for a writer
            with pytest.raises(ArchiveError, match="locked"):
                await archive.insert([one])

        await in_database(url, lock_and_try)
        await archive.insert([one])
        assert await archive.read_log(one.id) == one.entries


async def test_a_database_that_does_not_answer_is_an_archive_error(
    url: str, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    await archive.check()
    with monkeypatch.context() as patch:
        patch.setattr(session, "_LIMIT_S", 0)
        with pytest.raises(ArchiveError, match="TimeoutError"):
            await archive.check()
    await archive.check()


async def test_a_commit_is_on_the_disk_when_it_returns(tmp_path: Path) -> None:
    async def pragmas(connection: AsyncConnection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [(await connection.execute(text(f"PRAGMA {name}"))).scalar() for name in names]

    full = 2
    url = f"sqlite+aiosqlite:///{tmp_path / 'a.sqlite3'}"
    await migrate(url, lambda line: None)
    assert await in_database(url, pragmas) == ["wal", full, 1]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "postgresql://x/y",
        "sqlite:///x",
        "sqlite+aiosqlite://",
        "sqlite+aiosqlite:///:memory:",
        "sqlite+aiosqlite://host/x",
        "mysql+asyncmy://user@host:port/x",
        "mysql+asyncmy://user@host",
    ],
)
def test_a_url_that_can_not_be_used_says_what_to_do(url: str) -> None:
    with pytest.raises(SettingsError, match=r"OPENCHAT_DATABASE_URL.*; use .*\w\+\w"):
        create_engine(url)


def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncmy", None)
    with pytest.raises(SettingsError, match="pip install asyncmy"):
        create_engine("mysql+asyncmy://user@host/x")


def test_on_mysql_a_row_that_exists_is_left_alone_and_a_wrong_one_still_refused() -> None:
    statement = str(insert_ignoring(response_logs, "mysql").compile(dialect=mysql.dialect()))
    assert statement.endswith("ON DUPLICATE KEY UPDATE response_id = response_logs.response_id")
    assert "IGNORE" not in statement
