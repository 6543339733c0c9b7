"""Waiting for a database that is not up yet; one that refuses us is not waited for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.errors import ArchiveError, SettingsError

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_CONNECT_LIMIT_S = 15.0
_REFUSALS = {
    1044: "the user may not use this database; `openchat migrate --create` grants what is needed",
    1045: "user or password is wrong",
    1049: "the database does not exist; `openchat migrate --create` makes it",
    1698: "the user may not log in with a password",
}
"""MySQL's error numbers that time does not cure."""


async def until_answers(engine: AsyncEngine, wait_s: float, progress: Callable[[str], None]) -> None:
    """Return when a connection can be made, with backoff and jitter up to `wait_s`.

    Raises SettingsError where the database refuses us, ArchiveError where it stays away.
    """
    if engine.dialect.name == "sqlite":
        return
    loop = asyncio.get_running_loop()
    deadline, pause_s = loop.time() + wait_s, _FIRST_PAUSE_S
    while (problem := await _problem(engine)) is not None:
        if loop.time() >= deadline:
            raise ArchiveError(f"the archive does not answer: {problem}")
        if pause_s == _FIRST_PAUSE_S:
            progress(f"waiting for the archive: {problem}")
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


async def _problem(engine: AsyncEngine) -> str | None:
    try:
        async with asyncio.timeout(_CONNECT_LIMIT_S), engine.connect():
            return None
    except (SQLAlchemyError, OSError) as exc:
        cause = getattr(exc, "orig", None) or exc
        number = cause.args[0] if cause.args else None
        if number in _REFUSALS:
            raise SettingsError(f"OPENCHAT_DATABASE_URL: {_REFUSALS[number]}") from exc
        return str(cause) or type(exc).__name__
