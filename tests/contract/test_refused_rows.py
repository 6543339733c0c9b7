"""A row's own fault or the database's: over SQLite, MariaDB, and any MySQL by OPENCHAT_TEST_MYSQL_URL."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from archive import connect, store
from archive.connect import create_engine, open_archive
from archive.migrate import migrate
from archive.store import Archive
from archive.tables import responses
from schemas.archived import ArchivedResponse, StoredEntry
from schemas.errors import ArchiveError, RowRefused
from tests.contract.test_archive import archive, in_database, response, url
from tests.database import MariaDB

__all__ = ["archive", "url"]  # fixtures

TOO_LARGE = StoredEntry("1-1", '"' + "x" * 2000 + '"')


@pytest.mark.parametrize(
    "bad",
    [
        {"tenant": None},
        {"model": "\ud800"},
        {"duration_ms": 1 << 80},
        {"accepted_at_ms": 1 << 60},
        {"accepted_at_ms": -(1 << 50)},
        {"entries": [StoredEntry("0-1", "\ud800")]},
    ],
    ids=["null", "no text", "number", "late", "early", "log"],
)
async def test_a_row_that_no_database_holds_is_refused_and_takes_no_other_with_it(
    archive: Archive, bad: dict[str, Any]
) -> None:
    good = response()
    with pytest.raises(RowRefused) as caught:
        await archive.insert([good, response(**bad)])
    assert not caught.value.retryable
    assert not await archive.exists(good.id)
    await archive.insert([good])


async def test_a_log_larger_than_its_bound_is_refused(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.codec._MAX_BYTES", 1000)
    with pytest.raises(RowRefused, match="larger than 1000 bytes"):
        await archive.insert([response(entries=[TOO_LARGE])])


def refusing_trigger(url: str) -> str:
    """Refuses rows whose tenant begins with `bad`."""
    if url.startswith("sqlite"):
        return (
            "CREATE TRIGGER no BEFORE INSERT ON responses WHEN NEW.tenant LIKE 'bad%%' "
            "BEGIN SELECT RAISE(ABORT, 'not this one'); END"
        )
    return (
        "CREATE TRIGGER no BEFORE INSERT ON responses FOR EACH ROW IF NEW.tenant LIKE 'bad%%' "
        "THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not this one'; END IF"
    )


async def run(url: str, *statements: str) -> None:
    for statement in statements:
        await in_database(url, lambda c, s=statement: c.exec_driver_sql(s))


async def test_a_row_that_a_trigger_refuses_is_refused(url: str, archive: Archive) -> None:
    await run(url, refusing_trigger(url))
    with pytest.raises(RowRefused, match="not this one"):
        await archive.insert([response(tenant="bad")])
    await archive.insert([response()])
    await run(url, "DROP TRIGGER no")


@pytest.mark.parametrize("changes", [{"model": "x" * 300}, {"duration_ms": 1 << 40}], ids=["long", "number"])
async def test_a_value_that_does_not_fit_its_column_is_refused(mariadb: MariaDB, changes: dict[str, Any]) -> None:
    async with fresh(mariadb) as (_, archive):
        with pytest.raises(RowRefused):
            await archive.insert([response(**changes)])


async def test_a_row_that_breaks_a_constraint_is_refused(mariadb: MariaDB) -> None:
    async with fresh(mariadb) as (url, archive):
        await run(url, "ALTER TABLE responses ADD CONSTRAINT few CHECK (attempts < 10)")
        with pytest.raises(RowRefused, match="few"):
            await archive.insert([response(attempts=11)])


@asynccontextmanager
async def fresh(server: MariaDB) -> AsyncIterator[tuple[str, Archive]]:
    url = await server.database()
    await migrate(url, print)
    async with open_archive(url) as archive:
        yield url, archive


def incompressible(size: int) -> ArchivedResponse:
    return response(entries=[StoredEntry("1-1", base64.b64encode(os.urandom(size)).decode())])


@asynccontextmanager
async def small_packets(server: MariaDB) -> AsyncIterator[None]:
    [(usual,)] = await server.execute("SELECT @@global.max_allowed_packet")
    await server.execute("SET GLOBAL max_allowed_packet = 131072")
    try:
        yield
    finally:
        await server.execute(f"SET GLOBAL max_allowed_packet = {usual}")


@pytest.mark.parametrize("size", [128_000, 130_000, 131_072, 400_000, 3_000_000])
async def test_a_row_over_the_servers_packet_is_refused_though_the_server_only_hangs_up(
    mariadb: MariaDB, size: int
) -> None:
    async with fresh(mariadb) as (_, archive), small_packets(mariadb):
        with pytest.raises(RowRefused, match="max_allowed_packet"):
            await archive.insert([incompressible(size)])
        await archive.insert([incompressible(110_000)])


async def test_rows_that_are_too_large_together_go_in_apart(mariadb: MariaDB) -> None:
    async with fresh(mariadb) as (_, archive), small_packets(mariadb):
        batch = [incompressible(40_000) for _ in range(6)]
        with pytest.raises(RowRefused, match="6 logs"):
            await archive.insert(batch)
        for one in batch:
            await archive.insert([one])
            assert await archive.read_log(one.id) == one.entries


async def test_a_connection_that_is_cut_is_no_rows_fault(mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fresh(mariadb) as (_, archive):
        look = store._stored

        async def look_and_be_cut(connection: Any, ids: list[bytes]) -> Any:
            found = await look(connection, ids)
            number = (await connection.exec_driver_sql("SELECT CONNECTION_ID()")).scalar_one()
            await mariadb.execute(f"KILL {number}")
            return found

        with monkeypatch.context() as patch:
            patch.setattr(store, "_stored", look_and_be_cut)
            await is_the_databases_fault(archive)
        await archive.insert([response()])


async def is_the_databases_fault(archive: Archive) -> None:
    with pytest.raises(ArchiveError) as caught:
        await archive.insert([response()])
    assert not isinstance(caught.value, RowRefused), caught.value
    assert caught.value.retryable


async def test_a_schema_that_is_not_ours_is_no_rows_fault(url: str, archive: Archive) -> None:
    await run(url, "ALTER TABLE responses RENAME COLUMN error_code TO other")
    await is_the_databases_fault(archive)
    await run(url, "ALTER TABLE responses RENAME COLUMN other TO error_code")
    await run(url, "ALTER TABLE response_logs RENAME TO other")
    await is_the_databases_fault(archive)
    await run(url, "ALTER TABLE other RENAME TO response_logs")
    await archive.insert([response()])


async def test_a_column_that_we_do_not_know_is_no_rows_fault(mariadb: MariaDB) -> None:
    async with fresh(mariadb) as (url, archive):
        await run(url, "ALTER TABLE responses ADD COLUMN more INT NOT NULL")
        await is_the_databases_fault(archive)


async def test_a_server_that_takes_no_writes_is_no_rows_fault(mariadb: MariaDB) -> None:
    async with fresh(mariadb) as (url, _):
        name = url.rpartition("/")[2]
        await mariadb.execute(
            "CREATE OR REPLACE USER reader@'%%' IDENTIFIED BY 'p'",
            f"GRANT ALL ON {name}.* TO reader@'%%'",
            "SET GLOBAL read_only = 1",
        )
        try:
            async with open_archive(mariadb.url(name, "reader", "p")) as archive:
                await is_the_databases_fault(archive)
        finally:
            await mariadb.execute("SET GLOBAL read_only = 0")
        await mariadb.execute(f"REVOKE INSERT ON {name}.* FROM reader@'%%'")
        async with open_archive(mariadb.url(name, "reader", "p")) as archive:
            await is_the_databases_fault(archive)


async def test_a_server_with_all_connections_taken_is_no_rows_fault(mariadb: MariaDB) -> None:
    async with fresh(mariadb) as (url, _):
        await mariadb.execute("CREATE OR REPLACE USER one@'%%' IDENTIFIED BY 'p' WITH MAX_USER_CONNECTIONS 1")
        name = url.rpartition("/")[2]
        await mariadb.execute(f"GRANT ALL ON {name}.* TO one@'%%'")
        first = create_engine(mariadb.url(name, "one", "p"))
        async with first.connect(), open_archive(mariadb.url(name, "one", "p")) as archive:
            await is_the_databases_fault(archive)
        await first.dispose()


async def test_a_row_that_another_holds_is_no_rows_fault(mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "_MYSQL_SESSION", ("SET SESSION innodb_lock_wait_timeout = 1",))
    one = response()
    async with fresh(mariadb) as (url, archive):

        async def hold_and_try(connection: AsyncConnection) -> None:
            await connection.execute(responses.insert(), [store._row(one, b"another!")])
            with pytest.raises(ArchiveError, match="Lock wait timeout") as caught:
                await archive.insert([one])
            assert not isinstance(caught.value, RowRefused)
            await connection.rollback()

        await in_database(url, hold_and_try)
        await archive.insert([one])
        assert await archive.read_log(one.id) == one.entries
