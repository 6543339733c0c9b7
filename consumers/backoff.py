"""Backoff with jitter for loops that supervise themselves."""

from __future__ import annotations

import asyncio
import random


class Backoff:
    """Waits longer after each failure in a row, up to a limit."""

    def __init__(self, *, first_s: float = 0.05, limit_s: float = 2.0) -> None:
        self._first_s = first_s
        self._limit_s = limit_s
        self._next_s = first_s

    def reset(self) -> None:
        """After a success."""
        self._next_s = self._first_s

    async def wait(self, stop: asyncio.Event | None = None) -> None:
        """Wait, less if `stop` is set meanwhile."""
        pause_s = self._next_s * random.uniform(0.5, 1.0)
        self._next_s = min(self._next_s * 2, self._limit_s)
        if stop is None:
            await asyncio.sleep(pause_s)
        else:
            await wait_event(stop, pause_s)


async def wait_event(event: asyncio.Event, timeout_s: float) -> bool:
    """True once the event is set, False after `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
