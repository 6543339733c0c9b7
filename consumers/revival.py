"""Bringing a dead engine back, within the attempts that it served."""

from __future__ import annotations

import asyncio
import logging

from consumers.backoff import Backoff
from engine.base import Engine
from schemas.errors import EngineDead

log = logging.getLogger(__name__)

_STARTS = 3


class Reviver:
    """Starts an engine anew; of many that ask at once, one does it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = asyncio.Lock()

    async def revive(self, error: EngineDead) -> None:
        """Returns when the engine serves again. Raises EngineDead where it can not be started."""
        async with self._lock:
            try:
                await self._engine.check()
                return
            except EngineDead:
                log.warning("engine_restarts error=%s", error.message)
            backoff = Backoff(limit_s=5.0)
            for tries_left in reversed(range(_STARTS)):
                await self._engine.close()
                try:
                    await self._engine.start(lambda line: log.info("engine %s", line))
                    return
                except EngineDead:
                    if not tries_left:
                        raise
                    await backoff.wait()
