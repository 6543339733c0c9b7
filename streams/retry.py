"""Retries for what an explicit id makes harmless to repeat."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from schemas.errors import BrokerError

Result = TypeVar("Result")


async def retry_harmless(
    call: Callable[[], Awaitable[Result]], *, tries: int = 4, base_s: float = 0.05, limit_s: float = 2.0
) -> Result:
    """Call again after a BrokerError, with exponential backoff and jitter; the last error is raised.

    No new try after `limit_s`: a caller waits, and a broker that hangs takes a whole timeout for each.
    """
    until = time.monotonic() + limit_s
    for attempt in range(tries - 1):
        try:
            return await call()
        except BrokerError:
            if time.monotonic() >= until:
                raise
            await asyncio.sleep(base_s * 2**attempt * random.uniform(0.5, 1.5))
    return await call()
