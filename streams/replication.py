"""Writes that count only once a replica has them.

Replication is asynchronous: what a primary acknowledged dies with it if no replica had it yet. WAIT, on the
connection of the write, closes that gap for the few writes that are promises: a request that is accepted, an
end that is about to be forgotten. What a connection wrote before is in order before it, so one WAIT is enough.
It narrows the window of a failover and does not close it (a replica that is behind may still be chosen).
"""

from __future__ import annotations

import time

from schemas.errors import BrokerError
from streams.clients import Client
from streams.connect import map_broker_errors

_KNOWN_S = 1.0


class Replication:
    """How many replicas must have a write, where there are any."""

    def __init__(self, replicas: int = 0, timeout_ms: int = 1000) -> None:
        self._replicas = replicas
        self._timeout_ms = timeout_ms
        self._connected = 0
        self._known_until = 0.0

    async def xadd(self, client: Client, key: str, fields: dict[str, bytes]) -> None:
        """Raises BrokerError, also where no replica has the entry in time: then it is in the stream, and may be
        sent again where that is harmless."""
        with map_broker_errors():
            if not self._replicas or not await self._has_replicas(client):
                await client.xadd(key, fields)
                return
            pipe = client.pipeline(transaction=False)
            pipe.xadd(key, fields)
            pipe.wait(self._replicas, self._timeout_ms)
            _, count = await pipe.execute()
        if count < self._replicas:
            self._known_until = 0.0
            raise BrokerError(f"{count} of {self._replicas} replicas had the write in time")

    async def _has_replicas(self, client: Client) -> bool:
        """With none connected there is nothing to wait for; `min-replicas-to-write` decides whether that is allowed."""
        now = time.monotonic()
        if now >= self._known_until:
            role = await client.execute_command("ROLE")
            self._connected = len(role[2]) if role[0] in (b"master", "master") else 0
            self._known_until = now + _KNOWN_S
        return self._connected > 0
