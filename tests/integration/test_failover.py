"""The whole pipeline while the primary of a Sentinel trio dies, and on a Cluster that loses a node for a while."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from formats.transcript import Transcript
from responses.accept import Prepared
from schemas.errors import BrokerError
from schemas.ids import ResponseId
from streams.connect import Broker
from streams.keys import partition_of
from tests import brokers
from tests.integration.rig import Rig, synthetic, text_of
from tests.waiting import until

TOKENS = 300


@pytest.fixture
async def trio(tmp_path: Path) -> AsyncIterator[brokers.SentinelTrio]:
    """One of our own: it will not be the same afterwards."""
    made = brokers.SentinelTrio(tmp_path)
    try:
        await asyncio.to_thread(made.start)
        yield made
    finally:
        made.stop()


async def connect(url: str) -> Broker:
    return Broker(url, timeout_s=1.0, connections=16)


async def has_text(rig: Rig, response_id: ResponseId) -> bool:
    try:
        return bool((await rig.transcript(response_id)).text)
    except BrokerError:
        return False


async def all_shown(rig: Rig, asked: list[Prepared]) -> None:
    for prepared in asked:
        await until(lambda i=prepared.id: has_text(rig, i), what="the first text")


def check_whole(transcript: Transcript, tokens: int = TOKENS) -> None:
    assert transcript.text == text_of(tokens)
    assert len(transcript.tokens) == tokens


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSTOP])
async def test_every_response_ends_whole_when_the_primary_goes_in_the_middle(
    trio: brokers.SentinelTrio, death: signal.Signals
) -> None:
    broker = await connect(trio.url)
    rig = Rig(broker)
    asked = [await rig.ask(TOKENS) for _ in range(8)]
    old = trio.primary
    async with rig.worker(), rig.worker("v"):
        await all_shown(rig, asked)
        old.send(death)
        for prepared in asked:
            check_whole(await rig.ended(prepared.id, timeout_s=60))
        assert await rig.ended((await rig.ask(5)).id)
        await rig.idle()
        if death is signal.SIGSTOP:
            old.send(signal.SIGCONT)  # the old primary comes back and finds itself a replica
            await until(lambda: old.info("replication")["role"] == "slave", timeout_s=60, what="the demotion")
            check_whole(await rig.ended((await rig.ask(TOKENS)).id))
    await broker.close()


async def test_responses_of_every_partition_go_through_a_cluster(cluster: brokers.Cluster) -> None:
    broker = await connect(cluster.url)
    rig = Rig(broker)
    asked = [await rig.ask(40) for _ in range(64)]
    assert len({partition_of(prepared.id, broker.partitions) for prepared in asked}) > 10
    async with rig.worker(engine=synthetic(capacity=64)):
        for prepared in asked:
            check_whole(await rig.ended(prepared.id), 40)
    assert all(node.client.dbsize() for node in cluster.data), "every node has its share"
    await broker.close()


async def test_a_node_of_the_cluster_that_freezes_holds_up_its_own_responses_only(cluster: brokers.Cluster) -> None:
    broker = await connect(cluster.url)
    rig = Rig(broker)
    frozen = cluster.data[0]
    async with rig.worker():
        asked = [await rig.ask(TOKENS) for _ in range(12)]
        await all_shown(rig, asked)
        frozen.send(signal.SIGSTOP)
        try:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.5):
                    await asyncio.gather(*(rig.ended(prepared.id) for prepared in asked))
        finally:
            frozen.send(signal.SIGCONT)
        for prepared in asked:
            check_whole(await rig.ended(prepared.id, timeout_s=60))
    await broker.close()
