"""redis-py clients for one node, Sentinel and Cluster, all with the same rules.

redis-py's defaults differ by constructor and its retries duplicate writes (a frozen
server turned one XADD into two), so every client here has none: callers retry, and
only what an explicit id makes harmless. `protocol=2` because on RESP3 an idle
connection that the server closed surfaces as an error (redis-py #4252) and because
RESP2 parses faster with hiredis. Connections are bounded, and the wait for one is.
"""

from __future__ import annotations

import asyncio
from typing import Any

import redis.exceptions
from redis._parsers.helpers import parse_stream_list
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from streams.addresses import BrokerAddress

Client = Any
"""A `redis.asyncio.Redis` or `RedisCluster`. Their own types are the union of every protocol and decoding at once."""

_POOL_WAIT_S = 5.0
_PIPELINE_HEADROOM = 4
"""Connections of a node of a Cluster, per command at once: pipelines take theirs beside the commands."""


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """redis-py's own pool raises where it is exhausted; this one waits."""

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()


class _BoundedCluster(RedisCluster):
    """redis-py's own raises where a node's connections are all in use; this one waits."""

    def __init__(self, *, connections: int, **kwargs: Any) -> None:
        # reinitialize_steps=0: on MOVED only the slot is learnt anew; else redis-py closes every
        # connection at each fifth MOVED, under the commands of others
        super().__init__(max_connections=connections * _PIPELINE_HEADROOM, reinitialize_steps=0, **kwargs)
        self._free = asyncio.Semaphore(connections)
        self._failed_node: str | None = None

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        try:
            async with asyncio.timeout(_POOL_WAIT_S):
                await self._free.acquire()
        except TimeoutError as exc:
            raise redis.exceptions.MaxConnectionsError("no free connection") from exc
        try:
            # redis-py does this too, but after it has looked for the slot: without the topology it
            # finds none and asks any node. And it would ask a frozen node for the topology first.
            await self.initialize(last_failed_node_name=self._failed_node)
            self._failed_node = None
            return await super().execute_command(*args, **kwargs)
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as exc:
            self._failed_node = getattr(exc, "last_failed_node_name", None)
            raise
        finally:
            self._free.release()


def new_client(
    address: BrokerAddress, *, connections: int, socket_timeout_s: float, connect_timeout_s: float
) -> Client:
    """A client that connects when it is first used; `connections` is the number of commands at once."""
    client = _client_for(
        address, connections=connections, socket_timeout_s=socket_timeout_s, connect_timeout_s=connect_timeout_s
    )
    client.set_response_callback("XRANGE", _xrange_reply)
    return client


def _xrange_reply(reply: Any, *, as_it_came: bool = False, **options: Any) -> Any:
    """redis-py makes a dictionary of each entry; who reads whole logs asks for the reply `as_it_came`."""
    return reply if as_it_came else parse_stream_list(reply, **options)  # type: ignore[no-untyped-call]


def _client_for(
    address: BrokerAddress, *, connections: int, socket_timeout_s: float, connect_timeout_s: float
) -> Client:
    rules = {
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": socket_timeout_s,
        "socket_connect_timeout": connect_timeout_s,
    }
    if address.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in address.hosts]
        options = {**rules, **address.options, "ssl": address.is_tls}
        return _BoundedCluster(connections=connections, startup_nodes=nodes, **options)
    bounds = {"max_connections": connections, "timeout": _POOL_WAIT_S}
    if address.kind == "single":
        return Redis(connection_pool=BlockingConnectionPool.from_url(address.url, **bounds, **rules))
    to_sentinels = {**rules, "socket_timeout": connect_timeout_s, "ssl": address.is_tls, **address.sentinel_options}
    manager: Any = Sentinel(address.hosts, sentinel_kwargs=to_sentinels)  # type: ignore[no-untyped-call]
    options = {**bounds, **rules, **address.options, "ssl": address.is_tls}
    return Redis(connection_pool=_SentinelPool(address.service, manager, **options))  # type: ignore[no-untyped-call]


async def close_client(client: Client) -> None:
    """Close every connection."""
    await client.aclose()
    pool = getattr(client, "connection_pool", None)  # a Cluster has one for each node
    if pool is not None:
        await pool.aclose()
