"""The lease and registry entry of one worker.

The lease is renewed while the worker is healthy. One that is gone although the broker
answered all the time means that this process was paused: others may have taken over,
so it goes on under a new consumer name. One that is gone after the broker was away is
the broker's loss and is put back: nobody claims before a whole lease time without a gap.

A worker whose engine still loads has a lease too, so that it is seen, and is not ready. One that
leaves gives its lease back and leaves its entry: gateways see from it when the model was there last.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable

import msgspec

from consumers.backoff import wait_event
from schemas.capabilities import Capabilities
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
        self._lock = asyncio.Lock()
        """Entries reach the registry in the order in which they were made."""
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

    def loads(self, line: str) -> None:
        """What the engine does before it is ready; shown with the next renewal."""
        self.info = msgspec.structs.replace(self.info, loading=line)

    async def begin(self) -> None:
        """Take the lease and enter the registry. Raises BrokerError; then a renewal does it."""
        try:
            await self._enter()
        except BrokerError:
            self._broker_failed = True
            raise

    async def be_ready(self, *, slots: int, capabilities: Capabilities, context_length: int) -> None:
        """The engine has started: say what it can do. Raises BrokerError; then it may be called again."""
        self.info = msgspec.structs.replace(
            self.info,
            is_ready=True,
            loading="",
            slots=slots,
            capabilities=capabilities,
            context_length=context_length,
        )
        await self._enter()

    async def _enter(self) -> None:
        async with self._lock:
            await self._leases.grant(self.consumer, self.boot)
            await self._put()
            self._answered()

    async def _put(self) -> None:
        info = msgspec.structs.replace(self.info, seen_at_ms=time.time_ns() // 1_000_000)
        await self._registry.put(info)

    async def end(self) -> None:
        """Leave at once instead of running out."""
        async with self._lock:
            if self.info.is_ready:
                self.update(running=0, tokens_per_s=0.0)
                await self._put()
            else:
                await self._registry.remove(self.consumer)
            await self._leases.release(self.consumer)

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

    async def run(self, stop: asyncio.Event, on_lost: Callable[[], None]) -> None:
        """Begin, and renew until `stop` is set; the broker may be away."""
        try:
            await self.begin()
        except BrokerError as exc:
            log.warning("worker_waits_for_broker consumer=%s error=%s", self.consumer, exc)
        await self.run_renewals(stop, on_lost)

    async def run_renewals(self, stop: asyncio.Event, on_lost: Callable[[], None]) -> None:
        """Renew until `stop` is set; `on_lost` is called when the worker has a new name."""
        while not await wait_event(stop, self._lease_s / _RENEWALS_PER_LEASE):
            try:
                async with self._lock:
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
        await self._put()
        self._answered()
