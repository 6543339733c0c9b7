"""Fixtures for all tests: real brokers, settings, and waiting for a condition."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from streams.connect import Broker
from streams.embedded import EmbeddedBroker
from tests import brokers, database

REDIS_BINARY = shutil.which("redis-server")


def need(found: object, what: str) -> None:
    """Skip locally where something is missing; under CI=true that is a failure."""
    if found:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is missing")


@pytest.fixture(params=["valkey", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which broker a test runs on; a module may override the list."""
    return str(request.param)


ON_ONE_NODE = pytest.mark.parametrize("kind", ["valkey", "redis"])
"""For tests that stop, freeze or reconfigure the server itself."""


@pytest.fixture
async def server(kind: str, tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    """A broker server with an empty data folder: Valkey 9.1 or Debian's Redis 7."""
    if kind == "redis":
        need(REDIS_BINARY, "redis-server")
    binary = REDIS_BINARY if kind == "redis" else None
    async with EmbeddedBroker(tmp_path / "broker-data", binary=binary) as server:
        yield server


@pytest.fixture
def broker_url(kind: str, request: pytest.FixtureRequest) -> str:
    """Of that server, the Sentinel trio or the Cluster."""
    name = kind if kind in ("sentinel", "cluster") else "server"
    return str(request.getfixturevalue(name).url)


@pytest.fixture
async def broker(broker_url: str) -> AsyncIterator[Broker]:
    """A client of that broker."""
    broker = Broker(broker_url, timeout_s=2.0, connections=16)
    yield broker
    await broker.close()


@pytest.fixture(scope="session")
def sentinel_trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[brokers.SentinelTrio]:
    """Made once; `sentinel` is it, emptied."""
    trio = brokers.SentinelTrio(tmp_path_factory.mktemp("sentinel"))
    try:
        trio.start()
        yield trio
    finally:
        trio.stop()


@pytest.fixture
def sentinel(sentinel_trio: brokers.SentinelTrio) -> brokers.SentinelTrio:
    sentinel_trio.clear()
    return sentinel_trio


@pytest.fixture(scope="session")
def three_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[brokers.Cluster]:
    """Made once; `cluster` is it, emptied."""
    nodes = brokers.Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()


@pytest.fixture
def cluster(three_nodes: brokers.Cluster) -> brokers.Cluster:
    three_nodes.clear()
    return three_nodes


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[database.MariaDB]:
    """A MariaDB server for all tests of this run."""
    need(database.SERVER and database.INSTALL, "mariadb-server")
    server = database.MariaDB(tmp_path_factory.mktemp("mariadb"))
    server.install()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[database.MariaDB]:
    """A server that a test may stop and freeze; not started."""
    need(database.SERVER and database.INSTALL, "mariadb-server")
    server = database.MariaDB(tmp_path)
    server.install()
    try:
        yield server
    finally:
        server.stop()
