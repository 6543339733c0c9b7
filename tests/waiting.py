"""Waiting for a condition with a deadline."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Value = TypeVar("Value")


async def until(condition: Callable[[], Value | Awaitable[Value]], *, timeout_s: float = 20.0, what: str = "") -> Value:
    """The first true value of the condition; AssertionError after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what or inspect.getsource(condition).strip()}"
        await _tick()


async def _tick() -> None:
    tick = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, tick.set)
    await tick.wait()
