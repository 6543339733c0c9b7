"""The pace of one generation, for the metrics of its engine."""

from __future__ import annotations

import time

from consumers.metrics import EngineMetrics


class Pace:
    """Begins when the engine is asked."""

    def __init__(self, metrics: EngineMetrics) -> None:
        self._metrics = metrics
        self._last = time.monotonic()
        self._has_begun = False

    def heard(self, tokens: int) -> None:
        """The engine gave a piece that stands for so many tokens, which count as evenly spaced."""
        now = time.monotonic()
        if self._has_begun:
            self._metrics.between_tokens((now - self._last) / tokens)
        else:
            self._has_begun = True
            self._metrics.first_token(now - self._last)
        self._metrics.tokens(tokens)
        self._last = now
