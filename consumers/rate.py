"""How fast something happens, between two looks."""

from __future__ import annotations

import time


class Rate:
    """Counts, and says how many came per second since the last look."""

    def __init__(self) -> None:
        self._count = 0
        self._since = time.monotonic()

    def add(self, count: int) -> None:
        self._count += count

    def per_second(self) -> float:
        """Since the last call."""
        now = time.monotonic()
        rate = self._count / max(now - self._since, 0.001)
        self._count, self._since = 0, now
        return round(rate, 1)
