"""Replay at speed: what is past comes at its original pace, or so many times faster.

The times are those of the log (`t`, milliseconds since acceptance), so the archive replays as Redis does. The clock
starts with the first event that is sent. A viewer that has everything goes on live: it is never ahead of the log.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

from msgspec import Meta
from starlette.requests import Request

from formats.sse import Encode
from ingress.framing import BrokenOff, Framing
from ingress.openapi.operation import Parameter
from ingress.tails import Tail
from ingress.viewer import MAX_ENTRIES_PER_WRITE, Show, follow
from schemas.errors import InvalidRequest

LEAST_SPEED = 0.1
MOST_SPEED = 1000.0
_GATHER_S = 0.005
"""Least time between two writes: what is due within it goes out together."""
_SPEED = re.compile(r"[0-9]{1,4}(\.[0-9]{1,20})?")
SPEED = Parameter(
    name="speed",
    type=Annotated[float, Meta(ge=LEAST_SPEED, le=MOST_SPEED)],
    description="What is past comes at its original pace (1), or so many times faster; without it, at once.",
)


def show_of(request: Request) -> Show:
    """How the events of a stream come: at once, or as they came, `speed` times faster. Raises InvalidRequest."""
    text = request.query_params.get("speed")
    return follow if text is None else partial(replay, speed=parse_speed(text))


def parse_speed(text: str) -> float:
    """Raises InvalidRequest."""
    speed = float(text) if _SPEED.fullmatch(text) else 0.0
    if not LEAST_SPEED <= speed <= MOST_SPEED:
        raise InvalidRequest(f"speed must be a number from {LEAST_SPEED:g} to {MOST_SPEED:g}.", param="speed")
    return speed


async def replay(
    tail: Tail, encode: Encode, start: int, draining: asyncio.Event, framing: Framing, *, speed: float
) -> AsyncIterator[bytes]:
    """As `follow`, each event not before its time. Raises BrokenOff."""
    clock = _Clock(tail, start, speed)
    index = start
    while index < len(tail.entries) and tail.error is None:
        end = clock.due(index)
        chunk = b"".join([encode(tail.entries, i) for i in range(index, end)])
        index = end
        if chunk:
            yield chunk
        if index == len(tail.entries):
            break
        if draining.is_set():
            break
        await tail.wait_awake(clock.wait_s(index))
    if index == len(tail.entries) and tail.error is None:
        async for chunk in follow(tail, encode, index, draining, framing):
            yield chunk
        return
    words = framing.drains if tail.error is None else framing.last_words(tail)
    if words is None:
        raise BrokenOff
    yield words


class _Clock:
    """When each entry of a tail is due."""

    def __init__(self, tail: Tail, start: int, speed: float) -> None:
        self._tail = tail
        self._now = asyncio.get_running_loop().time
        self._began = self._now()
        self._first_ms = tail.entries[start].event.t if start < len(tail.entries) else 0
        self._speed = speed

    def due(self, index: int) -> int:
        """Index behind the last entry that is due, no more than go into one write."""
        entries = self._tail.entries
        limit_ms = self._first_ms + (self._now() - self._began) * 1000 * self._speed
        most = min(len(entries), index + MAX_ENTRIES_PER_WRITE)
        while index < most and entries[index].event.t <= limit_ms:
            index += 1
        return index

    def wait_s(self, index: int) -> float:
        """Until the entry is due, and a little at least, so that it is not the only one."""
        due = self._began + (self._tail.entries[index].event.t - self._first_ms) / 1000 / self._speed
        return max(_GATHER_S, due - self._now())
