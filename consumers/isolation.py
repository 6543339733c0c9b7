"""Who may be between its take and its first token: many at once, or a suspect alone.

A worker that dies is blamed on every request that had begun and had no token yet. One of them may be
poison. So a request that was blamed once begins alone: if the worker dies again, nobody else is
blamed. Neighbours that have shown a token go on beside it, for an attempt with a token does not count.
"""

from __future__ import annotations

import asyncio


class Isolation:
    """The beginnings of one worker: shared by all, exclusive for a suspect. Suspects go first."""

    def __init__(self) -> None:
        self._inside = 0
        self._is_exclusive = False
        self.suspects = 0
        """Those that wait to begin alone."""
        self._changed = asyncio.Event()

    async def begin(self) -> Place:
        """Waits while a suspect is inside or wants to be."""
        while self._is_exclusive or self.suspects:
            await self._changed.wait()
        self._inside += 1
        return Place(self, is_alone=False)

    async def begin_alone(self) -> Place:
        """Waits until nobody is inside."""
        self.suspects += 1
        try:
            while self._inside:
                await self._changed.wait()
            self._inside, self._is_exclusive = 1, True
        finally:
            self.suspects -= 1
            self._wake()
        return Place(self, is_alone=True)

    def leave(self, place: Place) -> None:
        """As `Place.leave`."""
        self._inside -= 1
        if place.is_alone:
            self._is_exclusive = False
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class Place:
    """Being inside; `leave` may be called again."""

    def __init__(self, isolation: Isolation, *, is_alone: bool) -> None:
        self.is_alone = is_alone
        self._isolation: Isolation | None = isolation

    def leave(self) -> None:
        """The first token is there, or there will be none."""
        isolation, self._isolation = self._isolation, None
        if isolation is not None:
            isolation.leave(self)
