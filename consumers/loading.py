"""Starting the engine of a worker, which may take minutes: watched by operators, ended by a stop."""

from __future__ import annotations

import asyncio
import logging
import time

from consumers.metrics import EngineMetrics
from consumers.presence import Presence
from engine.base import Engine
from schemas.errors import EngineDead

log = logging.getLogger(__name__)

_GIVE_UP_S = 10.0
"""An engine that goes on loading for so long after it was told to stop is left behind: the process ends."""
_LINE = 200
"""Characters of a line of progress in the registry."""


class EngineLoader:
    """Starts one engine; its progress goes to the log, to the registry and into the metrics."""

    def __init__(self, engine: Engine, presence: Presence, metrics: EngineMetrics) -> None:
        self._engine = engine
        self._presence = presence
        self._metrics = metrics

    async def load(self, stop: asyncio.Event) -> bool:
        """True once the engine serves; False where `stop` was set before. Raises SettingsError, EngineDead."""
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        self._metrics.begins_loading()

        def progress(line: str) -> None:
            loop.call_soon_threadsafe(self._show, line)  # engines load in threads

        starting = asyncio.create_task(self._engine.start(progress))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                await _give_up(starting)
                return False
            await starting
        finally:
            starting.cancel()
            stopping.cancel()
        self._loaded(time.monotonic() - began)
        return True

    def _show(self, line: str) -> None:
        log.info("engine_loads model=%s %s", self._presence.info.model, line)
        self._presence.loads(line[:_LINE])

    def _loaded(self, seconds: float) -> None:
        info = self._presence.info
        log.info("engine_loaded model=%s engine=%s seconds=%.1f", info.model, info.engine, seconds)
        self._metrics.loaded(seconds, self._engine.capacity)


async def _give_up(starting: asyncio.Task[None]) -> None:
    starting.cancel()
    await asyncio.wait({starting}, timeout=_GIVE_UP_S)
    if not starting.done():
        raise EngineDead("the engine does not stop loading")
    if not starting.cancelled() and (error := starting.exception()) is not None:
        log.warning("engine_not_loaded error=%s", error)
