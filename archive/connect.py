"""Connections to the archive, every wait limited."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from archive.store import Archive
from schemas.errors import SettingsError

_BUSY_TIMEOUT_S = 15.0
_POOL_TIMEOUT_S = 10.0
_DRIVERS = {"sqlite+aiosqlite": {"timeout": _BUSY_TIMEOUT_S}, "mysql+asyncmy": {"connect_timeout": 10}}


def create_engine(url: str) -> AsyncEngine:
    """Raises SettingsError for a URL that can not be used."""
    try:
        parsed = make_url(url)
    except ArgumentError as exc:
        raise SettingsError("OPENCHAT_DATABASE_URL is no database URL; use sqlite+aiosqlite:///path/to/file") from exc
    if parsed.drivername not in _DRIVERS:
        raise SettingsError(
            f"OPENCHAT_DATABASE_URL: {parsed.drivername!r} is not supported; use one of {', '.join(_DRIVERS)}"
        )
    _check_folder(parsed)
    options: dict[str, Any] = {"connect_args": _DRIVERS[parsed.drivername], "pool_timeout": _POOL_TIMEOUT_S}
    try:
        engine = create_async_engine(parsed, pool_pre_ping=parsed.get_backend_name() == "mysql", **options)
    except ImportError as exc:
        raise SettingsError(f"OPENCHAT_DATABASE_URL: the driver of {parsed.drivername} is not installed") from exc
    if parsed.get_backend_name() == "sqlite":
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    return engine


def _check_folder(url: URL) -> None:
    is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    if is_file and not Path(str(url.database)).parent.is_dir():
        raise SettingsError(f"OPENCHAT_DATABASE_URL: the folder of {url.database} does not exist; create it")


def _prepare_sqlite(connection: Any, record: object) -> None:
    cursor = connection.cursor()
    # FULL: the log may expire once the row is committed, so the commit must be on the disk
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


@asynccontextmanager
async def open_archive(url: str) -> AsyncIterator[Archive]:
    """The archive at a URL; connects when it is first used. Raises SettingsError."""
    engine = create_engine(url)
    try:
        yield Archive(engine)
    finally:
        await engine.dispose()
