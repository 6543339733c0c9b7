"""The broker as one process sees it: its clients, one error map, and scripts."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import resources
from typing import Any

import redis.exceptions

from schemas.errors import BrokerError, BrokerTimeout, GroupMissing, SettingsError
from schemas.settings import Settings
from streams.addresses import parse_broker_url
from streams.clients import Client, close_client, new_client
from streams.keys import CONTROL

_BLOCK_MARGIN_S = 2.0
_CLUSTER_PARTITIONS = 16
_AWAY = (redis.exceptions.RedisError, redis.exceptions.RedisClusterException, OSError)
_LOST_WRITER = ("write", "writelines", "drain")
"""Attributes of None: redis-py 8.1's Cluster client closes connections that other tasks are opening."""


@contextmanager
def map_broker_errors() -> Iterator[None]:
    """Turn redis-py's errors into BrokerTimeout, GroupMissing or BrokerError.

    redis-py 8.1 sometimes swallows a cancellation that arrives inside a command; it is
    raised again here. Who catches one and goes on must `uncancel` its task.
    """
    try:
        yield
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
    except redis.exceptions.TimeoutError as exc:
        raise BrokerTimeout(f"the broker did not answer in time: {exc}") from exc
    except redis.exceptions.ResponseError as exc:
        if str(exc).startswith(("NOGROUP", "no such key")):
            raise GroupMissing(str(exc)) from exc
        raise BrokerError(f"{_refusal(exc)}: {exc}") from exc
    except AttributeError as exc:
        if exc.name not in _LOST_WRITER:
            raise
        raise BrokerError("the broker is away: the connection was closed while it was made") from exc
    except _AWAY as exc:
        raise BrokerError(f"the broker is away: {exc}") from exc


def _refusal(error: redis.exceptions.ResponseError) -> str:
    if isinstance(error, redis.exceptions.OutOfMemoryError):
        return "the broker is full"
    if isinstance(error, redis.exceptions.ReadOnlyError):
        return "the broker is read-only"
    if "NOREPLICAS" in str(error):
        return "the broker takes no writes without its replicas"
    return "the broker refused"


class Script:
    """One Lua file of `streams/lua/`; survives a lost script cache."""

    def __init__(self, name: str) -> None:
        self._source = resources.files("streams").joinpath("lua", f"{name}.lua").read_bytes()
        self._sha = hashlib.sha1(self._source, usedforsecurity=False).hexdigest()

    async def run(self, client: Client, keys: list[str], args: list[Any]) -> Any:
        """Raises BrokerError or BrokerTimeout; a NOSCRIPT ran nothing, so sending the source again is safe."""
        with map_broker_errors():
            try:
                return await client.evalsha(self._sha, len(keys), *keys, *args)
            except redis.exceptions.NoScriptError:
                return await client.eval(self._source, len(keys), *keys, *args)


class Broker:
    """A pool for commands, and own connections for reads that block."""

    def __init__(
        self, url: str, *, timeout_s: float, connections: int, partitions: int = 0, wait_replicas: int = 0
    ) -> None:
        """`partitions` 0: one, and 16 on a Cluster; `wait_replicas` -1: one with Sentinel.

        Raises SettingsError for a URL that can not be used.
        """
        self._address = parse_broker_url(url)
        self.wait_replicas = self._replicas(wait_replicas)
        """Replicas that must have an accepted request and an end; see `streams.replication`."""
        self._timeout_s = timeout_s
        self._blocking: list[Client] = []
        self.partitions = partitions or (_CLUSTER_PARTITIONS if self._address.kind == "cluster" else 1)
        """Of the response logs. All processes must agree, for the life of the data."""
        self.commands = self._client(connections, timeout_s)

    def _replicas(self, wanted: int) -> int:
        if self._address.kind == "cluster" and wanted > 0:
            raise SettingsError("OPENCHAT_WAIT_REPLICAS: WAIT needs one connection to one node, a Cluster has many")
        return max(0, wanted) if wanted >= 0 else int(self._address.kind == "sentinel")

    def _client(self, connections: int, socket_timeout_s: float) -> Client:
        return new_client(
            self._address,
            connections=connections,
            socket_timeout_s=socket_timeout_s,
            connect_timeout_s=self._timeout_s,
        )

    def blocking(self, block_ms: int, *, readers: int = 1) -> Client:
        """A client for `readers` reads at once that block up to `block_ms`, a connection for each."""
        client = self._client(readers, block_ms / 1000 + _BLOCK_MARGIN_S)
        self._blocking.append(client)
        return client

    async def ping(self) -> None:
        """Ask for something that only a broker that serves data answers. Raises BrokerError."""
        with map_broker_errors():
            await self.commands.exists(CONTROL)

    async def close(self) -> None:
        for client in (self.commands, *self._blocking):
            await close_client(client)


@asynccontextmanager
async def connect_broker(settings: Settings) -> AsyncIterator[Broker]:
    """The broker of the settings; raises SettingsError for a URL that can not be used. Connects lazily."""
    broker = Broker(
        settings.redis_url,
        timeout_s=settings.broker_timeout_s,
        connections=settings.broker_connections,
        partitions=settings.partitions,
        wait_replicas=settings.wait_replicas,
    )
    try:
        yield broker
    finally:
        await broker.close()
