"""Connections to the archive, every wait limited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from archive.store import Archive
from schemas.errors import SettingsError

_NAME = "OPENCHAT_DATABASE_URL"
_LOCK_TIMEOUT_S = 15
"""Longest wait for another's transaction."""
_POOL_TIMEOUT_S = 10.0
_DRIVERS: Mapping[str, Mapping[str, object]] = {
    "sqlite+aiosqlite": {"timeout": _LOCK_TIMEOUT_S},
    "mysql+asyncmy": {"connect_timeout": 10},
}
# FULL: the log may expire once the row is committed, so the commit must be on the disk
_SQLITE_SESSION = ("PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON")
# TRADITIONAL: a value that does not fit is refused; a server set otherwise would cut it and say nothing
_MYSQL_SESSION = (f"SET SESSION sql_mode='TRADITIONAL', SESSION innodb_lock_wait_timeout={_LOCK_TIMEOUT_S}",)


def create_engine(url: str) -> AsyncEngine:
    """An engine that connects when it is first used; the caller disposes of it.

    Raises SettingsError for a URL that can not be used.
    """
    parsed = parse_url(url)
    is_sqlite = parsed.get_backend_name() == "sqlite"
    if is_sqlite:
        _check_folder(parsed)
    try:
        engine = create_async_engine(
            parsed,
            connect_args=dict(_DRIVERS[parsed.drivername]),
            pool_timeout=_POOL_TIMEOUT_S,
            pool_pre_ping=not is_sqlite,
            hide_parameters=True,  # they are what people wrote: not for a log line or a traceback
        )
    except ImportError as exc:
        raise SettingsError(
            f"{_NAME}: the driver of {parsed.drivername} is not installed; run `pip install {parsed.get_driver_name()}`"
        ) from exc
    except ArgumentError as exc:
        raise SettingsError(f"{_NAME} can not be used; use three slashes, sqlite+aiosqlite:///path/to/file") from exc
    _prepare_each_connection(engine, _SQLITE_SESSION if is_sqlite else _MYSQL_SESSION)
    return engine


def parse_url(url: str, *, name: str = _NAME, default_database: str | None = None) -> URL:
    """The parts of a database URL; `name` is the setting it comes from. Raises SettingsError."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as exc:  # ValueError: a port that is no number
        raise SettingsError(f"{name} is no database URL; use sqlite+aiosqlite:///path/to/file") from exc
    if parsed.drivername not in _DRIVERS:
        raise SettingsError(f"{name}: {parsed.drivername!r} is not supported; use one of {', '.join(_DRIVERS)}")
    if parsed.database in (None, "", ":memory:"):
        if default_database:
            return parsed.set(database=default_database)
        # memory would be a database of its own for each connection, and gone with the process
        raise SettingsError(f"{name} names no database; use {parsed.drivername}:///path/to/file or …://host/name")
    return parsed


def _check_folder(url: URL) -> None:
    if not Path(str(url.database)).parent.is_dir():
        raise SettingsError(f"{_NAME}: the folder of {url.database} does not exist; create it")


def _prepare_each_connection(engine: AsyncEngine, statements: tuple[str, ...]) -> None:
    def prepare(connection: DBAPIConnection, record: object) -> None:
        cursor: Any = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        cursor.close()

    event.listen(engine.sync_engine, "connect", prepare)


@asynccontextmanager
async def open_archive(url: str) -> AsyncIterator[Archive]:
    """The archive at a URL; connects when it is first used. Raises SettingsError."""
    engine = create_engine(url)
    try:
        yield Archive(engine)
    finally:
        await engine.dispose()
