"""Waiting for what has no event to wait for, with a limit."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

_POLL_S = 0.02


async def until(condition: Callable[[], object | Awaitable[object]], limit_s: float, poll_s: float = _POLL_S) -> bool:
    """True once the condition holds, False after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return True
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(poll_s)
