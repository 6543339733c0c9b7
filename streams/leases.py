"""Leases and the worker registry: liveness is per worker, not per request."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from schemas.decoding import UNDECODABLE
from schemas.workers import Registered, WorkerInfo
from streams.clients import Client
from streams.connect import Script, map_broker_errors
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
    """What each worker serves. An entry without a lease is a dead worker's: when it was there last."""

    def __init__(self, client: Client, leases: Leases) -> None:
        self._client = client
        self._leases = leases
        self._prune = Script("prune_workers")

    async def put(self, info: WorkerInfo) -> None:
        with map_broker_errors():
            await self._client.hset(WORKERS, info.consumer, _encode(info))

    async def remove(self, consumer: str) -> None:
        with map_broker_errors():
            await self._client.hdel(WORKERS, consumer)

    async def all(self) -> list[Registered]:
        """Every entry that can be read, by name. Raises BrokerError."""
        with map_broker_errors():
            rows = await self._client.hgetall(WORKERS)
        known = [(info, raw) for raw in rows.values() if (info := _info(raw)) is not None]
        alive = await self._leases.living([info.consumer for info, _ in known])
        found = [Registered(info, info.consumer in alive, raw) for info, raw in known]
        return sorted(found, key=lambda registered: registered.info.consumer)

    async def living(self) -> list[WorkerInfo]:
        """All workers that have a lease, those that still load included, by name."""
        return [registered.info for registered in await self.all() if registered.is_alive]

    async def prune(self, dead: Iterable[Registered]) -> int:
        """Forget these, except where one has spoken since; how many were forgotten. Raises BrokerError."""
        arguments = [argument for entry in dead for argument in (entry.info.consumer, entry.raw)]
        return int(await self._prune.run(self._client, [WORKERS], arguments)) if arguments else 0


def _info(raw: bytes) -> WorkerInfo | None:
    """None for what another version wrote that this one can not read."""
    try:
        return _decode(raw)
    except UNDECODABLE:
        return None
