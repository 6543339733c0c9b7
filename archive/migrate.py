"""Bringing the schema to its newest revision."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from archive.connect import create_engine
from archive.errors import map_sql_errors
from archive.tables import HEAD
from schemas.errors import SettingsError

_SCRIPTS = Path(__file__).parent.parent / "migrations"
_LOCK_LIMIT_S = 60.0
_POLL_S = 0.02


async def migrate(url: str, progress: Callable[[str], None]) -> None:
    """Upgrade to the newest revision; many may run it at once.

    Raises SettingsError for a schema that is newer than this version, ArchiveError.
    """
    engine = create_engine(url)
    try:
        with map_sql_errors():
            if await _revision(engine) == HEAD:
                return
            async with _lock(url):
                revision = await _revision(engine)
                if revision == HEAD:
                    return
                progress(f"the archive goes from schema {revision or 'none'} to {HEAD}")
                async with engine.begin() as connection:
                    await connection.run_sync(_upgrade, revision)
    finally:
        await engine.dispose()


async def _revision(engine: AsyncEngine) -> str | None:
    async with engine.connect() as connection:
        if not await connection.run_sync(lambda sync: inspect(sync).has_table("alembic_version")):
            return None
        found: str | None = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
        return found


def _upgrade(connection: Connection, revision: str | None) -> None:
    from alembic import command
    from alembic.script import ScriptDirectory

    config = alembic_config(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise SettingsError(f"the archive has schema {revision}, which is newer than this OpenChat: upgrade OpenChat")
    command.upgrade(config, "head")


def alembic_config(connection: Connection | None) -> Any:
    """Alembic's configuration, made here so that there is no file with paths in it."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.attributes["connection"] = connection
    return config


@asynccontextmanager
async def _lock(url: str) -> AsyncIterator[None]:
    """One migration at a time: for SQLite a lock file beside the database."""
    database = make_url(url).database
    if make_url(url).get_backend_name() != "sqlite" or not database or database == ":memory:":
        yield
        return
    with open(f"{database}.migrate.lock", "wb") as file:  # noqa: ASYNC230 - once, local
        for _ in range(int(_LOCK_LIMIT_S / _POLL_S)):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                await asyncio.sleep(_POLL_S)
        else:
            raise SettingsError("another migration has been running for a minute; wait for it, or stop it")
        yield
