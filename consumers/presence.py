"""The lease and registry entry of one worker.

The lease is renewed while the worker is healthy. One that is gone although the broker
answered all the time means that this process was paused: others may have taken over,
so it goes on under a new consumer name. One that is gone after the broker was away is
the broker's loss and is put back: nobody claims before a whole lease time without a gap.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable

import msgspec

from consumers.backoff import wait_event
from schemas.errors import BrokerError
from schemas.workers import WorkerInfo
from streams.leases import Leases, WorkerRegistry

log = logging.getLogger(__name__)

_RENEWALS_PER_LEASE = 4


class Presence:
    """Keeps one worker alive in the eyes of the others."""

    def __init__(self, leases: Leases, registry: WorkerRegistry, info: WorkerInfo) -> None:
        self._leases = leases
        self._registry = registry
        self._lease_s = leases.lease_ms / 1000
        self._last_answer = 0.0
        self._steady_since: float | None = None
        self._broker_failed = False
        self.boot = ""
        self.info = info
        self._new_name()

    @property
    def consumer(self) -> str:
        return self.info.consumer

    def _new_name(self) -> None:
        self.boot = secrets.token_hex(4)
        self.info = msgspec.structs.replace(self.info, consumer=f"{self.info.name}-{self.boot}")

    def update(self, *, running: int, tokens_per_s: float) -> None:
        """Shown with the next renewal."""
        self.info = msgspec.structs.replace(self.info, running=running, tokens_per_s=tokens_per_s)

    async def begin(self) -> None:
        """Take the lease and enter the registry. Raises BrokerError."""
        await self._leases.grant(self.consumer, self.boot)
        await self._registry.put(self.info)
        self._answered()

    async def end(self) -> None:
        """Leave at once instead of running out."""
        await self._leases.release(self.consumer)
        await self._registry.remove(self.consumer)

    def may_claim(self) -> bool:
        """The broker has answered without a gap for one whole lease time."""
        now = time.monotonic()
        return self._steady_since is not None and now - self._steady_since >= self._lease_s and not self._is_late(now)

    def _is_late(self, now: float) -> bool:
        return now - self._last_answer >= self._lease_s

    def _answered(self) -> None:
        now = time.monotonic()
        if self._steady_since is None or self._is_late(now):
            self._steady_since = now
        self._last_answer = now
        self._broker_failed = False

    async def run_renewals(self, stop: asyncio.Event, on_lost: Callable[[], None]) -> None:
        """Renew until `stop` is set; `on_lost` is called when the worker has a new name."""
        while not await wait_event(stop, self._lease_s / _RENEWALS_PER_LEASE):
            try:
                await self._renew(on_lost)
            except BrokerError as exc:
                self._broker_failed = True
                self._steady_since = None
                log.warning("lease_not_renewed consumer=%s error=%s", self.consumer, exc)

    async def _renew(self, on_lost: Callable[[], None]) -> None:
        if self._broker_failed:
            # its keys may be gone with its last seconds; see the top of this file
            await self._leases.grant(self.consumer, self.boot)
        elif not await self._leases.renew(self.consumer, self.boot):
            log.warning("lease_lost consumer=%s", self.consumer)
            await self._registry.remove(self.consumer)
            self._new_name()
            on_lost()
            await self._leases.grant(self.consumer, self.boot)
        await self._registry.put(self.info)
        self._answered()
