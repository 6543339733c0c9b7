"""A connection for one piece of work: its errors are ours, and its time is limited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from archive.errors import map_sql_errors

_LIMIT_S = 30.0
"""Longest use of a connection. A server that is frozen answers nothing, not even an error."""


@asynccontextmanager
async def session(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Rolled back in the end, unless it was committed. Raises ArchiveError, RowRefused."""
    with map_sql_errors():
        async with asyncio.timeout(_LIMIT_S), engine.connect() as connection:
            yield connection
