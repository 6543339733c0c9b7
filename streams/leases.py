"""Leases and the worker registry: liveness is per worker, not per request."""

from __future__ import annotations

import msgspec

from schemas.workers import WorkerInfo
from streams.clients import Client
from streams.connect import map_broker_errors
from streams.keys import WORKERS, lease_key

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(WorkerInfo).decode


class Leases:
    """Who is alive: a consumer is while its key exists."""

    def __init__(self, client: Client, lease_ms: int) -> None:
        self._client = client
        self.lease_ms = lease_ms

    async def grant(self, consumer: str, boot: str) -> None:
        """Begin a lease, or put one back that the broker lost."""
        with map_broker_errors():
            await self._client.set(lease_key(consumer), boot, px=self.lease_ms)

    async def renew(self, consumer: str, boot: str) -> bool:
        """Prolong a lease; False where it is gone: then others may own what this consumer held."""
        with map_broker_errors():
            return bool(await self._client.set(lease_key(consumer), boot, px=self.lease_ms, xx=True))

    async def release(self, consumer: str) -> None:
        """Give the lease up on the way out."""
        with map_broker_errors():
            await self._client.delete(lease_key(consumer))

    async def living(self, consumers: list[str]) -> set[str]:
        """Those of the consumers that have a lease, in one round trip."""
        if not consumers:
            return set()
        pipe = self._client.pipeline(transaction=False)
        for consumer in consumers:
            pipe.exists(lease_key(consumer))
        with map_broker_errors():
            replies = await pipe.execute()
        return {consumer for consumer, found in zip(consumers, replies, strict=True) if found}


class WorkerRegistry:
    """What each worker serves. An entry without a lease is a dead worker's."""

    def __init__(self, client: Client, leases: Leases) -> None:
        self._client = client
        self._leases = leases

    async def put(self, info: WorkerInfo) -> None:
        with map_broker_errors():
            await self._client.hset(WORKERS, info.consumer, _encode(info))

    async def remove(self, consumer: str) -> None:
        with map_broker_errors():
            await self._client.hdel(WORKERS, consumer)

    async def living(self) -> list[WorkerInfo]:
        """All workers that have a lease, by name."""
        with map_broker_errors():
            rows = await self._client.hgetall(WORKERS)
        known: list[WorkerInfo] = [_decode(raw) for raw in rows.values()]
        alive = await self._leases.living([info.consumer for info in known])
        return sorted((info for info in known if info.consumer in alive), key=lambda info: info.consumer)
