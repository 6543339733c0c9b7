"""Migrations: head equals the tables, up and down with data, many at once."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from archive.connect import create_engine
from archive.migrate import alembic_config, migrate
from archive.tables import HEAD, metadata
from schemas.errors import SettingsError


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'a.sqlite3'}"


async def in_database(url: str, work: object) -> object:
    engine = create_engine(url)
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(work)  # type: ignore[arg-type]
    finally:
        await engine.dispose()


def test_the_constant_is_the_newest_revision() -> None:
    assert ScriptDirectory.from_config(alembic_config(None)).get_current_head() == HEAD


async def test_head_equals_the_tables(url: str) -> None:
    await migrate(url, print)
    diffs = await in_database(url, lambda c: compare_metadata(MigrationContext.configure(c), metadata))
    assert diffs == []


async def test_a_second_migration_says_and_does_nothing(url: str) -> None:
    said: list[str] = []
    await migrate(url, said.append)
    await migrate(url, said.append)
    assert said == [f"the archive goes from schema none to {HEAD}"]


async def test_down_and_up_again_with_data(url: str) -> None:
    await migrate(url, print)

    def down_and_up(connection: Connection) -> set[str]:
        connection.execute(
            text("INSERT INTO responses VALUES (x'00','a','chat','m','completed','2026-01-01',1,1,1,1,1,0,NULL)")
        )
        command.downgrade(alembic_config(connection), "base")
        left = set(inspect(connection).get_table_names())
        command.upgrade(alembic_config(connection), "head")
        return left

    assert await in_database(url, down_and_up) == {"alembic_version"}
    await migrate(url, print)


async def test_ten_may_migrate_at_once(url: str) -> None:
    said: list[str] = []
    await asyncio.gather(*(migrate(url, said.append) for _ in range(10)))
    assert len(said) == 1


async def test_a_newer_schema_is_refused(url: str) -> None:
    await migrate(url, print)
    await in_database(url, lambda c: c.execute(text("UPDATE alembic_version SET version_num = '9999'")) and None)
    with pytest.raises(SettingsError, match="upgrade OpenChat"):
        await migrate(url, print)


async def test_a_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        await migrate(f"sqlite+aiosqlite:///{tmp_path / 'none' / 'a.sqlite3'}", print)


def test_the_migrations_can_be_written_for_mysql() -> None:
    config = alembic_config(None)
    config.attributes["dialect"] = "mysql"
    config.output_buffer = io.StringIO()
    command.upgrade(config, "head", sql=True)
    statements = config.output_buffer.getvalue()
    for words in ("id BINARY(16)", "DATETIME(6)", "MEDIUMBLOB", "ENGINE=InnoDB", "ON DELETE CASCADE"):
        assert words in statements
