"""Bringing the schema to its newest revision.

Alembic is imported only where there is something to do: a start that finds the schema at
HEAD does not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from archive.connect import create_engine
from archive.errors import map_sql_errors
from archive.reach import until_answers
from archive.revision import current_revision
from archive.tables import HEAD
from archive.wal import use_write_ahead_log
from schemas.errors import ArchiveError, SettingsError

if TYPE_CHECKING:
    from alembic.config import Config

_SCRIPTS = Path(__file__).parent.parent / "migrations"
_MYSQL_LOCK = text("SELECT GET_LOCK('openchat_migrate', 60)")


async def migrate(url: str, progress: Callable[[str], None], *, wait_s: float = 0.0) -> None:
    """Upgrade to the newest revision; many may run it at once. `progress` gets a line if there is work.

    A database that does not answer yet is waited for, up to `wait_s`. Raises SettingsError for a URL
    that can not be used and for a schema that is newer than this version; ArchiveError.
    """
    engine = create_engine(url)
    try:
        await until_answers(engine, wait_s, progress)
        with map_sql_errors():
            if engine.dialect.name == "sqlite":
                await use_write_ahead_log(engine)
            async with engine.connect() as connection:
                if await current_revision(connection) == HEAD:
                    return
            async with engine.connect() as connection:
                await _begin_alone(connection)
                await _upgrade_from(await current_revision(connection), connection, progress)
                await connection.commit()
    finally:
        await engine.dispose()


async def _begin_alone(connection: AsyncConnection) -> None:
    """Begin a transaction that no other migration runs beside; ends with the connection."""
    if connection.dialect.name != "sqlite":
        if await connection.scalar(_MYSQL_LOCK) != 1:
            raise ArchiveError("another migration has been running for a minute; wait for it, or stop it")
        return
    # SQLite alters a table by building it anew and dropping the old one, and with foreign keys
    # on, that drop would delete every log; inside a transaction they can not be switched off
    await connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    # explicit, because the driver begins none before DDL: a crash would leave half a schema
    await connection.exec_driver_sql("BEGIN IMMEDIATE")


async def _upgrade_from(revision: str | None, connection: AsyncConnection, progress: Callable[[str], None]) -> None:
    if revision == HEAD:
        return  # another was faster
    progress(f"the archive goes from schema {revision or 'none'} to {HEAD}")
    await connection.run_sync(_upgrade, revision)


def _upgrade(connection: Connection, revision: str | None) -> None:
    from alembic import command
    from alembic.script import ScriptDirectory

    config = alembic_config(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise SettingsError(f"the archive has schema {revision}, which is newer than this OpenChat: upgrade OpenChat")
    command.upgrade(config, "head")


def head_revision() -> str | None:
    """The newest revision in `migrations/`, which HEAD must equal."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(alembic_config(None)).get_current_head()


def alembic_config(connection: Connection | None) -> Config:
    """Alembic's configuration, made here so that there is no file with paths in it.

    Without a connection it writes SQL instead, for the dialect named in `attributes["dialect"]`.
    """
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
