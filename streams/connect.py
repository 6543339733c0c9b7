"""Clients of the broker: explicit timeouts, no blind retries, one error map.

redis-py's defaults differ by constructor and its retries duplicate writes (a frozen
server turned one XADD into two), so every client here has none: callers retry, and
only what an explicit id makes harmless. `protocol=2` because on RESP3 an idle
connection that the server closed surfaces as an error (redis-py #4252) and because
RESP2 parses faster with hiredis.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

import redis.exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from schemas.errors import BrokerError, BrokerTimeout, GroupMissing, SettingsError
from schemas.settings import Settings

Client = Any
"""A `redis.asyncio.Redis`. Its own types are the union of every protocol and decoding at once."""

_SCHEMES = ("redis", "rediss", "unix")
_POOL_WAIT_S = 5.0
_BLOCK_MARGIN_S = 2.0


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
        raise BrokerError(f"the broker refused: {exc}") from exc
    except (redis.exceptions.RedisError, OSError) as exc:
        raise BrokerError(f"the broker is away: {exc}") from exc


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
    """The broker as one process sees it: a pool for commands, own connections for blocking reads."""

    def __init__(self, url: str, *, timeout_s: float, connections: int) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._blocking: list[Client] = []
        self.commands = self._client(connections, timeout_s)

    def _client(self, connections: int, socket_timeout_s: float) -> Client:
        pool = BlockingConnectionPool.from_url(
            self._url,
            max_connections=connections,
            timeout=_POOL_WAIT_S,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=socket_timeout_s,
            socket_connect_timeout=self._timeout_s,
        )
        return Redis(connection_pool=pool)

    def blocking(self, block_ms: int) -> Client:
        """A client with one connection, for reads that block up to `block_ms`."""
        client = self._client(1, block_ms / 1000 + _BLOCK_MARGIN_S)
        self._blocking.append(client)
        return client

    async def ping(self) -> None:
        """Raises BrokerError."""
        with map_broker_errors():
            await self.commands.ping()

    async def close(self) -> None:
        for client in (self.commands, *self._blocking):
            await client.aclose()
            await client.connection_pool.aclose()


@asynccontextmanager
async def connect_broker(settings: Settings) -> AsyncIterator[Broker]:
    """The broker of the settings; raises SettingsError for a URL that can not be used. Connects lazily."""
    scheme = urlsplit(settings.redis_url).scheme
    if scheme not in _SCHEMES:
        raise SettingsError(
            f"OPENCHAT_REDIS_URL: {scheme or 'empty'!r} is no supported scheme; use redis://, rediss:// or unix://"
        )
    try:
        broker = Broker(
            settings.redis_url, timeout_s=settings.broker_timeout_s, connections=settings.broker_connections
        )
    except ValueError as exc:
        raise SettingsError(f"OPENCHAT_REDIS_URL: {exc}") from exc
    try:
        yield broker
    finally:
        await broker.close()
