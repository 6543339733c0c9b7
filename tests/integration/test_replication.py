"""A promise counts once a replica has it: over a real primary with a real replica."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schemas.errors import BrokerError, SettingsError
from streams.connect import Broker
from streams.replication import Replication
from tests import brokers
from tests.integration.rig import Rig
from tests.ports import HOST
from tests.waiting import until


@pytest.fixture
async def trio(tmp_path: Path) -> AsyncIterator[brokers.SentinelTrio]:
    made = brokers.SentinelTrio(tmp_path, down_after_ms=60_000)  # no failover meanwhile
    try:
        await asyncio.to_thread(made.start)
        yield made
    finally:
        made.stop()


@pytest.mark.parametrize(
    ("url", "setting", "replicas"),
    [
        ("redis+sentinel://a:1,b:2/0?service=s", -1, 1),
        ("redis+sentinel://a:1,b:2/0?service=s", 0, 0),
        ("redis://a:1", -1, 0),
        ("redis://a:1", 2, 2),
        ("redis+cluster://a:1", -1, 0),
    ],
)
async def test_with_sentinel_one_replica_is_waited_for_and_else_none(url: str, setting: int, replicas: int) -> None:
    broker = Broker(url, timeout_s=1, connections=1, wait_replicas=setting)
    assert broker.wait_replicas == replicas
    await broker.close()


def test_on_a_cluster_no_replica_can_be_waited_for() -> None:
    with pytest.raises(SettingsError, match="Cluster"):
        Broker("redis+cluster://a:1", timeout_s=1, connections=1, wait_replicas=1)


async def test_a_write_that_its_replica_has_counts(trio: brokers.SentinelTrio) -> None:
    broker = Broker(trio.url, timeout_s=2, connections=4)
    await Replication(1).xadd(broker.commands, "oc:test", {"a": b"1"})
    assert trio.data[1].client.xlen("oc:test") == 1
    await broker.close()


async def test_a_replica_that_does_not_answer_makes_an_error_and_one_that_is_gone_does_not(
    trio: brokers.SentinelTrio,
) -> None:
    broker = Broker(trio.url, timeout_s=2, connections=4)
    replication = Replication(1, timeout_ms=200)
    replica = trio.data[1]
    replica.send(signal.SIGSTOP)
    with pytest.raises(BrokerError, match="0 of 1 replicas"):
        await replication.xadd(broker.commands, "oc:test", {"a": b"1"})
    replica.send(signal.SIGKILL)
    await until(lambda: trio.data[0].info("replication")["connected_slaves"] == 0, what="the primary to notice")

    async def is_written() -> bool:
        try:
            await replication.xadd(broker.commands, "oc:test", {"a": b"2"})
        except BrokerError:
            return False
        return True

    await until(is_written, timeout_s=5, what="a write without replicas")
    await broker.close()


async def test_a_request_that_no_replica_has_is_not_accepted(trio: brokers.SentinelTrio) -> None:
    broker = Broker(trio.url, timeout_s=2, connections=4)
    rig = Rig(broker)
    rig.queue._replication = Replication(1, timeout_ms=100)
    await rig.ask(3)
    trio.data[1].send(signal.SIGSTOP)
    try:
        with pytest.raises(BrokerError, match="replicas"):
            await rig.ask(3)
    finally:
        trio.data[1].send(signal.SIGCONT)
    await broker.close()


async def test_min_replicas_to_write_refuses_at_once_where_there_is_none(tmp_path: Path) -> None:
    node = brokers.Node(tmp_path, "alone", brokers.CONF, "--min-replicas-to-write", "1")
    await asyncio.to_thread(node.start)
    broker = Broker(f"redis://{HOST}:{node.port}", timeout_s=2, connections=4)
    try:
        with pytest.raises(BrokerError, match="NOREPLICAS"):
            async with asyncio.timeout(3):
                await Rig(broker).ask(3)
    finally:
        await broker.close()
        node.stop()
