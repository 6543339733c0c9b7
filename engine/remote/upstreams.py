"""The upstreams of a model, and the way of one request through them.

Each request goes to one of the healthy ones, chosen at random by weight. Where that fails and the request is not to
blame, the others are tried at once, and then those that may do better in a moment, but only before the first
piece: what was begun is never begun again elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from types import TracebackType
from typing import NoReturn

from engine.remote.api import RemoteApi
from engine.remote.errors import UpstreamFault
from engine.remote.health import Health
from engine.remote.metrics import UPSTREAM_REQUESTS, UPSTREAM_RESTING
from schemas.errors import RequestError, UpstreamUnavailable

log = logging.getLogger(__name__)

_MORE_TRIES = 3
"""Of one request, beside one at each upstream."""
_FIRST_WAIT_S = 0.5
"""Before an upstream is asked a second time, twice that before the third, … A longer rest is not waited for: it keeps
others away, and this request has nowhere else to go."""
_PATIENCE_S = 30.0
"""A request waits so long in all where upstreams say how long, and is then failed: its caller knows what to do."""
_WAKE_SPREAD = 0.25
"""Those that wait for the same upstream come back over this part of their wait more."""


class Upstream:
    """A remote API with its share of the requests and its health."""

    def __init__(self, api: RemoteApi, *, name: str, weight: float, continues: bool, rng: random.Random) -> None:
        self.api = api
        self.name = name
        """For logs and metrics."""
        self.weight = weight
        self.continues = continues
        self.health = Health(rng)
        resting = UPSTREAM_RESTING.labels(name)
        resting.set_function(lambda: self.health.is_resting(time.monotonic()))


class Try:
    """One request at one upstream, from its start to its end."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.api = upstream.api
        self.has_begun = False
        """The first piece is there."""
        self._began_at = time.monotonic()
        self._is_probe = upstream.health.begun()

    def heard(self) -> None:
        """A piece came, or the end, or a refusal: it serves."""
        if self.has_begun:
            return
        self.has_begun = True
        self._probed()
        if self.upstream.health.served(self._began_at):
            log.info("upstream_serves upstream=%s", self.upstream.name)

    def __enter__(self) -> Try:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._probed()
        if isinstance(exc, UpstreamFault):
            outcome = "broke_off" if self.has_begun else "failed"
            self._rest(exc)
        elif exc is None or isinstance(exc, RequestError):
            outcome = "served" if exc is None else "refused"
            self.heard()
        else:
            outcome = "left"
        UPSTREAM_REQUESTS.labels(self.upstream.name, outcome).inc()

    def _rest(self, fault: UpstreamFault) -> None:
        health, now = self.upstream.health, time.monotonic()
        is_news = not health.is_resting(now)
        rest_s = health.failed(self._began_at, now, fault.retry_after_s)
        if is_news:
            log.warning("upstream_rests upstream=%s for_s=%.1f reason=%s", self.upstream.name, rest_s, fault.reason)

    def _probed(self) -> None:
        if self._is_probe:
            self._is_probe = False
            self.upstream.health.probed()


class Tries:
    """The way of one request through the upstreams."""

    def __init__(self, upstreams: Sequence[Upstream], rng: random.Random) -> None:
        self._rng = rng
        self._open = list(upstreams)
        """Those that may still be asked."""
        self._tried: list[Upstream] = []
        self._left = len(upstreams) + _MORE_TRIES
        self._give_up_at = time.monotonic() + _PATIENCE_S
        self._next_wait_s = _FIRST_WAIT_S
        self._fault: UpstreamFault | None = None

    async def next(self) -> Try:
        """Waits where all are resting. Raises the error of the last try when nobody is left to ask."""
        if not self._left or not self._open:
            self._give_up()
        self._left -= 1
        now = time.monotonic()
        ready = [one for one in self._open if one not in self._tried and one.health.is_open(now)]
        if ready:
            chosen = self._rng.choices(ready, [one.weight for one in ready])[0]
        else:
            chosen = await self._first_to_recover(now)
        self._tried.append(chosen)
        return Try(chosen)

    def failed(self, attempt: Try, fault: UpstreamFault) -> None:
        """Raises its error if the request can not be served by another any more."""
        if attempt.has_begun:
            raise fault.error from fault
        self._fault = fault
        if not fault.can_retry:
            self._open.remove(attempt.upstream)

    async def _first_to_recover(self, now: float) -> Upstream:
        chosen = min(self._open, key=lambda one: (self._wait_s(one, now), one.health.rests_until))
        wait_s = self._wait_s(chosen, now)
        if wait_s and now + wait_s > self._give_up_at:
            self._give_up()
        if chosen in self._tried:
            self._next_wait_s *= 2
        await asyncio.sleep(wait_s * (1 + _WAKE_SPREAD * self._rng.random()))
        return chosen

    def _wait_s(self, upstream: Upstream, now: float) -> float:
        """What it said itself is kept; a rest that we gave it is no reason not to ask it once where all are resting."""
        wait_s = max(0.0, upstream.health.told_until - now)
        if upstream in self._tried:
            wait_s = max(wait_s, min(self._next_wait_s, upstream.health.rests_until - now))
        return wait_s

    def _give_up(self) -> NoReturn:
        if self._fault is None:
            raise UpstreamUnavailable("Every upstream asked to be left alone for a while; try again later.")
        raise self._fault.error from self._fault
