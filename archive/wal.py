"""SQLite's write-ahead log: readers and one writer at once. The file remembers it, so a migration switches it on."""

from __future__ import annotations

import asyncio
import random

from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

_LIMIT_S = 30.0
_FIRST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.5


async def use_write_ahead_log(engine: AsyncEngine) -> None:
    """Switch it on, if it is not. Raises OperationalError where others hold the file for too long.

    The switch needs the file alone and does not wait for it: SQLite calls no busy handler there,
    so its own timeout does nothing (sqlite.org/wal.html), and two first starts at once would meet.
    """
    loop = asyncio.get_running_loop()
    deadline, pause_s = loop.time() + _LIMIT_S, _FIRST_PAUSE_S
    while True:
        try:
            async with engine.connect() as connection:
                await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
                return
        except OperationalError as exc:
            if "locked" not in str(exc.orig) or loop.time() >= deadline:
                raise
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
