"""Retries for what an explicit id makes harmless to repeat."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from schemas.errors import BrokerError

Result = TypeVar("Result")


async def retry_harmless(call: Callable[[], Awaitable[Result]], *, tries: int = 4, base_s: float = 0.05) -> Result:
    """Call again after a BrokerError, with exponential backoff and jitter; the last error is raised."""
    for attempt in range(tries - 1):
        try:
            return await call()
        except BrokerError:
            await asyncio.sleep(base_s * 2**attempt * random.uniform(0.5, 1.5))
    return await call()
