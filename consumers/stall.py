"""Is the engine stuck? It is where something waits for it and nothing comes for a while.

Counted in looks, not by the clock: a process that was paused has not looked meanwhile, and its engine
is not to blame.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class StallWatch:
    """Of one engine; `look` is called at a steady pace."""

    def __init__(self, looks: int) -> None:
        """Stuck after so many looks in a row without a sign of life; 0: never."""
        self._limit = looks
        self._silent = 0
        self._waiting = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A generation waits for the engine."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    @contextmanager
    def not_waiting(self) -> Iterator[None]:
        """Within `waiting`: it waits for something else now."""
        self._waiting -= 1
        try:
            yield
        finally:
            self._waiting += 1

    def heard(self) -> None:
        """Something came from the engine."""
        self._silent = 0

    def look(self) -> bool:
        """True once the engine counts as stuck."""
        self._silent = self._silent + 1 if self._waiting else 0
        return 0 < self._limit <= self._silent
