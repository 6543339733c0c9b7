"""The disconnect rule: a response that nobody views any more is ended, unless it may go on alone.

Ended is what is in the foreground, OPENCHAT_DISCONNECT_GRACE_S after its last viewer left, at any
gateway. Every gateway says once a second what it shows (`streams.viewed`); a viewer that comes
back to a gateway says so at once. A gateway that drains or dies ends nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ingress import metrics
from ingress.tails import Tail, Tails
from responses.end import Ender, cancellation
from schemas.errors import LogGone, OpenChatError
from schemas.ids import ResponseId
from streams.viewed import VIEWED_S, Viewed

log = logging.getLogger(__name__)

_REFRESH_S = 1.0
_KNOWN_AFTER_S = 2.0
"""A gateway that accepted a response shows it in the broker after one refresh: until then its own word counts."""
_MAX_DEPARTURES = 10_000
_END_TRIES = 8
_LOOKS = 2
"""If others show it, one of them may have died and can not take its word back: look once more when that is over."""


class Viewers:
    """The viewers of one gateway, and what becomes of a response when they leave."""

    def __init__(self, tails: Tails, viewed: Viewed, ender: Ender, *, grace_s: float) -> None:
        self._tails = tails
        self._viewed = viewed
        self._ender = ender
        self._grace_s = grace_s
        self._departures: dict[ResponseId, asyncio.Task[None]] = {}
        self.draining = asyncio.Event()
        """This gateway leaves its clients, and not they it: nothing is ended for that."""

    def drain(self) -> None:
        """From now on streams end with a hint where they go on. Call it from the event loop."""
        self.draining.set()
        self._tails.wake_all()

    async def announce(self, tail: Tail) -> None:
        """Before a viewer of another gateway's response is served: the others must know. Raises BrokerError."""
        if not tail.is_over and tail.accepted.request.needs_viewer:
            await self._viewed.refresh([tail.id])

    @contextmanager
    def viewing(self, tail: Tail) -> Iterator[None]:
        """A client waits for this response; if it leaves before the end, the disconnect rule holds."""
        tail.viewers += 1
        metrics.VIEWERS.inc()
        try:
            yield
        finally:
            metrics.VIEWERS.dec()
            tail.viewers -= 1
            if tail.viewers == 0 and not tail.is_over:
                self._departed(tail)

    def _departed(self, tail: Tail) -> None:
        if self.draining.is_set() or not tail.accepted.request.needs_viewer or tail.id in self._departures:
            return
        if len(self._departures) >= _MAX_DEPARTURES:
            log.warning("too_many_departures id=%s: it goes on", tail.id)
            return
        age_s = max(0.0, time.time() - tail.accepted.at_ms / 1000)
        wait_s = self._grace_s
        if not tail.is_accepted_here:
            wait_s = max(wait_s, _KNOWN_AFTER_S - age_s)
        task = asyncio.create_task(self._end_unviewed(tail.id, wait_s))
        self._departures[tail.id] = task
        task.add_done_callback(lambda _: self._departures.pop(tail.id, None))

    async def _end_unviewed(self, response_id: ResponseId, wait_s: float) -> None:
        looks = _LOOKS
        for _ in range(_END_TRIES):
            await asyncio.sleep(wait_s)
            if self.draining.is_set() or self._tails.is_viewed(response_id):
                return
            try:
                if await self._viewed.leave(response_id) == 0:
                    await self._end(response_id)
                    return
            except OpenChatError as exc:
                log.warning("unviewed_not_ended id=%s error=%s", response_id, exc)
                wait_s = _REFRESH_S
                continue
            looks -= 1
            if not looks:
                return
            wait_s = VIEWED_S

    async def _end(self, response_id: ResponseId) -> None:
        with contextlib.suppress(LogGone):
            await self._ender.end(response_id, cancellation())
        log.info("ended_unviewed id=%s", response_id)
        metrics.DISCONNECTED.inc()

    async def run_refreshes(self) -> None:
        """Say once a second what this gateway shows, until cancelled."""
        while True:
            await asyncio.sleep(_REFRESH_S)
            try:
                await self._viewed.refresh(self._tails.viewed())
            except OpenChatError as exc:
                log.warning("viewed_not_refreshed error=%s", exc)
