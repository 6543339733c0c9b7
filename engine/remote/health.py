"""How one upstream does, judged by the requests that it gets: nothing is sent only to look.

One that failed rests, each time longer, until it serves again. The rest over, one request tries it first.
"""

from __future__ import annotations

import math
import random

_FIRST_REST_S = 0.5
_LONGEST_REST_S = 20.0
_LONGEST_TOLD_S = 120.0
"""What an upstream says of itself is believed up to here."""


class Health:
    """Times are those of `time.monotonic`."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._failures = 0
        """In a row; tries that ran side by side are one."""
        self._failed_at = -math.inf
        self.rests_until = -math.inf
        self.told_until = -math.inf
        """As `rests_until`, but by its own word (Retry-After): until then nothing is sent to it at all."""
        self._probes = 0

    def is_resting(self, now: float) -> bool:
        return now < self.rests_until

    def is_open(self, now: float) -> bool:
        """It may be chosen: it does not rest, and after a rest nobody else is trying it just now."""
        return not self.is_resting(now) and not (self._failures and self._probes)

    def begun(self) -> bool:
        """A try begins; True: it is a probe, whose end must be told to `probed`."""
        is_probe = self._failures > 0
        self._probes += is_probe
        return is_probe

    def probed(self) -> None:
        self._probes -= 1

    def served(self, began_at: float) -> bool:
        """A try that began then went well; True: it had failed before. One that began before it failed says nothing."""
        if not self._failures or began_at < self._failed_at:
            return False
        self._failures = 0
        self.rests_until = self.told_until = -math.inf
        return True

    def failed(self, began_at: float, now: float, retry_after_s: float | None) -> float:
        """A try that began then failed; returns how long the upstream rests from now on, seconds."""
        self._failures = self._failures + 1 if began_at >= self._failed_at else max(1, self._failures)
        self._failed_at = now
        if retry_after_s is not None:
            rest_s = min(retry_after_s, _LONGEST_TOLD_S)
            self.told_until = max(self.told_until, now + rest_s)
        else:
            longest_s = min(_LONGEST_REST_S, _FIRST_REST_S * 2.0 ** min(self._failures - 1, 30))
            rest_s = longest_s * (1 - 0.25 * self._rng.random())
        self.rests_until = max(self.rests_until, now + rest_s)
        return self.rests_until - now
