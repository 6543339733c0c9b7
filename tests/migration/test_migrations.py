"""Migrations: head equals the tables, up and down with data, many at once."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import io
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, event, inspect, select, text
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateTable

from archive import migrate as migrate_module
from archive.connect import create_engine, open_archive
from archive.migrate import alembic_config, head_revision, migrate
from archive.tables import HEAD, metadata, responses, usage_hours
from schemas.errors import ArchiveError, SettingsError
from tests.database import MariaDB

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
ROW = (
    "INSERT INTO responses (id, tenant, format, model, status, accepted_at, duration_ms, attempts, input_tokens,"
    " output_tokens, cached_tokens, ended_at) VALUES (x'00','a','chat','m','completed','2026-01-01 00:00:00',1,1,1,1,1,"
    " '2026-01-01 00:00:00')"
)
LOG = "INSERT INTO response_logs VALUES (x'00', 1, x'00')"


@pytest.fixture(params=["sqlite", "mariadb"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "mariadb":
        return str(await request.getfixturevalue("mariadb").database())
    return f"sqlite+aiosqlite:///{tmp_path / 'a.sqlite3'}"


async def in_database(url: str, work: Callable[[Connection], T]) -> T:
    engine = create_engine(url)
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(work)
    finally:
        await engine.dispose()


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


def add_a_response(connection: Connection) -> None:
    connection.execute(text(ROW))
    connection.execute(text(LOG))


def add_an_old_response(connection: Connection) -> None:
    connection.execute(
        text("INSERT INTO responses VALUES (x'00','a','chat','m','completed','2026-01-01 00:00:00',1,1,1,1,1,0,NULL)")
    )
    connection.execute(text(LOG))


def differences(connection: Connection) -> list[Any]:
    """Between the database and the tables."""
    options = {"compare_type": True, "compare_server_default": True}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def note_revision(connection: Connection, revision: str) -> None:
    connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


def logs(connection: Connection) -> object:
    return connection.execute(text("SELECT count(*) FROM response_logs")).scalar()


def test_the_constant_is_the_newest_revision() -> None:
    assert head_revision() == HEAD


async def test_head_equals_the_tables(url: str) -> None:
    await migrate(url, print)

    assert await in_database(url, differences) == []


async def test_a_second_migration_says_and_does_nothing(url: str) -> None:
    said: list[str] = []
    await migrate(url, said.append)
    await migrate(url, said.append)
    assert said == [f"the archive goes from schema none to {HEAD}"]


async def test_a_start_with_nothing_to_do_does_not_load_alembic(url: str) -> None:
    await migrate(url, print)
    program = (
        "import asyncio, sys\nfrom archive.migrate import migrate\n"
        f"asyncio.run(migrate({url!r}, print))\nassert 'alembic' not in sys.modules"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, cwd=ROOT)
    assert await process.wait() == 0


async def test_down_and_up_again_with_data(url: str) -> None:
    await migrate(url, print)

    def down_and_up(connection: Connection) -> set[str]:
        add_a_response(connection)
        command.downgrade(alembic_config(connection), "base")
        left = tables(connection)
        command.upgrade(alembic_config(connection), "head")
        add_a_response(connection)
        return left

    assert await in_database(url, down_and_up) == {"alembic_version"}
    async with open_archive(url) as archive:
        await archive.check()


async def test_ten_may_migrate_at_once(url: str) -> None:
    said: list[str] = []
    await asyncio.gather(*(migrate(url, said.append) for _ in range(10)))
    assert len(said) == 1


async def test_several_processes_may_migrate_at_once(url: str) -> None:
    program = f"import asyncio\nfrom archive.migrate import migrate\nasyncio.run(migrate({url!r}, print))"
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        for _ in range(8)
    ]
    said = b"".join([(await process.communicate())[0] for process in started])
    assert [process.returncode for process in started] == [0] * 8, said
    assert said.count(b"the archive goes") == 1


async def test_a_first_migration_waits_for_another_process_that_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite3"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("CREATE TABLE other (a)")
        writer.execute("BEGIN IMMEDIATE")
        migrating = asyncio.create_task(migrate(f"sqlite+aiosqlite:///{path}", lambda line: None))
        done, _ = await asyncio.wait([migrating], timeout=0.5)
        assert not done
        writer.execute("ROLLBACK")
    await migrating


async def test_a_migration_that_breaks_off_leaves_nothing_behind(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade = migrate_module._upgrade

    def upgrade_and_crash(connection: Connection, revision: str | None) -> None:
        upgrade(connection, revision)
        assert tables(connection) == {"alembic_version", *metadata.tables}
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(migrate_module, "_upgrade", upgrade_and_crash)
        with pytest.raises(KeyboardInterrupt):
            await migrate(url, print)
    if url.startswith("sqlite"):  # MySQL commits after each statement: there it is done again
        assert await in_database(url, tables) == set()
    await migrate(url, print)
    async with open_archive(url) as archive:
        await archive.check()


async def test_rows_of_the_first_schema_are_brought_along(url: str) -> None:
    await migrate(url, print)

    def down_and_fill(connection: Connection) -> None:
        command.downgrade(alembic_config(connection), "0001")
        assert tables(connection) == {"alembic_version", "responses", "response_logs"}
        connection.execute(
            text(
                "INSERT INTO responses VALUES (x'00','a','chat','m','completed',"
                "'2026-01-01 23:59:59.500000',NULL,1750,1,1,1,0,NULL)"
            )
        )
        connection.execute(text(LOG))

    await in_database(url, down_and_fill)
    await migrate(url, print)
    (row,) = await in_database(url, lambda connection: connection.execute(select(responses)).mappings().all())
    assert row["ended_at"] == datetime.datetime(2026, 1, 2, 0, 0, 1, 250_000)
    assert (row["engine"], row["lane"], row["is_stored"], row["reasoning_tokens"]) == ("", "interactive", True, 0)
    assert (row["cost_micros"], row["key_id"], row["write_id"]) == (None, None, None)
    assert await in_database(url, logs) == 1
    assert await in_database(url, lambda connection: connection.execute(select(usage_hours)).all()) == []


async def test_the_second_migration_that_was_killed_at_any_statement_is_done_again(mariadb: MariaDB) -> None:
    """Each time from the first schema, killed one statement later than before."""
    survived = 0
    while True:
        url = await mariadb.database()
        await in_database(url, lambda connection: command.upgrade(alembic_config(connection), "0001"))
        await in_database(url, add_an_old_response)
        if not await killed_after(url, survived):
            break
        await migrate(url, lambda line: None)
        assert await in_database(url, differences) == []
        assert await in_database(url, logs) == 1
        survived += 5 if survived > 30 else 1
    assert survived > 30


async def killed_after(url: str, statements: int) -> bool:
    """Upgrade, and die before one more statement that changes something; False where there was no more."""
    left = statements

    def work(connection: Connection) -> None:
        @event.listens_for(connection, "before_cursor_execute")
        def count(_c: object, _cursor: object, statement: str, *_: object) -> None:
            nonlocal left
            if statement.lstrip().startswith(("CREATE", "ALTER", "UPDATE", "INSERT")):
                left -= 1
                if left < 0:
                    raise KeyboardInterrupt

        command.upgrade(alembic_config(connection), "head")

    try:
        await in_database(url, work)
    except KeyboardInterrupt:
        return True
    return False


async def test_a_migration_that_was_killed_at_any_statement_is_done_again(mariadb: MariaDB) -> None:
    for kept in ("responses", "responses,response_logs"):
        url = await mariadb.database()
        await migrate(url, print)
        name = url.rpartition("/")[2]
        drops = [f"DROP TABLE {name}.{table}" for table in ("response_logs", "responses") if table not in kept]
        await mariadb.execute(*drops, f"DELETE FROM {name}.alembic_version")
        await migrate(url, print)
        async with open_archive(url) as archive:
            await archive.check()


async def test_sqlite_may_rebuild_a_table_without_losing_the_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'a.sqlite3'}"
    await migrate(url, print)
    await in_database(url, add_a_response)
    await in_database(url, lambda c: note_revision(c, "0000"))

    def rebuild(connection: Connection, revision: str | None) -> None:
        with Operations(MigrationContext.configure(connection)).batch_alter_table("responses", recreate="always"):
            pass

    monkeypatch.setattr(migrate_module, "_upgrade", rebuild)
    await migrate(url, print)
    assert await in_database(url, logs) == 1


async def test_a_newer_schema_is_refused_and_left_alone(url: str) -> None:
    await migrate(url, print)
    await in_database(url, lambda c: note_revision(c, "9999"))
    before = await in_database(url, tables)
    with pytest.raises(SettingsError, match="upgrade OpenChat"):
        await migrate(url, print)
    assert await in_database(url, tables) == before
    async with open_archive(url) as archive:
        with pytest.raises(ArchiveError, match="9999"):
            await archive.check()


async def test_a_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        await migrate(f"sqlite+aiosqlite:///{tmp_path / 'none' / 'a.sqlite3'}", print)
    assert not (tmp_path / "none").exists()


async def test_a_percent_sign_in_the_folder_of_the_scripts_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "100%s").symlink_to(ROOT / "migrations")
    monkeypatch.setattr(migrate_module, "_SCRIPTS", tmp_path / "100%s")
    assert head_revision() == HEAD


def mysql_statements(direction: Callable[..., None], revision: str) -> str:
    config = alembic_config(None)
    config.attributes["dialect"] = "mysql"
    config.output_buffer = io.StringIO()
    direction(config, revision, sql=True)
    return config.output_buffer.getvalue()


def test_the_migrations_can_be_written_for_mysql() -> None:
    statements = mysql_statements(command.upgrade, "head")
    for words in (
        "id BINARY(16)",
        "DATETIME(6)",
        "MEDIUMBLOB",
        "ENGINE=InnoDB",
        "CHARSET=utf8mb4",
        "COLLATE utf8mb4_bin",
        "ON DELETE CASCADE",
        "CREATE INDEX ix_responses_tenant_id ON responses (tenant, id)",
    ):
        assert words in statements
    assert "DROP TABLE responses" in mysql_statements(command.downgrade, f"{HEAD}:base")


def test_on_mysql_the_migrations_make_the_columns_of_the_tables() -> None:
    migrated = mysql_statements(command.upgrade, "head")
    for table in metadata.sorted_tables:
        for line in str(CreateTable(table, if_not_exists=True).compile(dialect=mysql.dialect())).splitlines():
            assert line.strip().rstrip(",; ") in migrated
