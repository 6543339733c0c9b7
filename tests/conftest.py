"""Fixtures for all tests: real brokers, settings, and waiting for a condition."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from streams.connect import Broker
from streams.embedded import EmbeddedBroker
from tests import database

REDIS_BINARY = shutil.which("redis-server")


def need(found: object, what: str) -> None:
    """Skip locally where something is missing; under CI=true that is a failure."""
    if found:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is missing")


@pytest.fixture(params=["valkey", "redis"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    """A broker server with an empty data folder: Valkey 9.1 and Debian's Redis 7."""
    if request.param == "redis":
        need(REDIS_BINARY, "redis-server")
    binary = REDIS_BINARY if request.param == "redis" else None
    async with EmbeddedBroker(tmp_path / "broker-data", binary=binary) as server:
        yield server


@pytest.fixture
async def broker(server: EmbeddedBroker) -> AsyncIterator[Broker]:
    """A client of that server."""
    broker = Broker(server.url, timeout_s=2.0, connections=16)
    yield broker
    await broker.close()


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
