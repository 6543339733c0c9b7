"""`openchat up` on a Sentinel trio whose primary is killed, and on a Cluster."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests import brokers
from tests.acceptance.stack import RunningStack, running

pytestmark = pytest.mark.timeout(240)

TOKENS = 400


async def text_of(stack: RunningStack, tokens: int, shown: asyncio.Event | None = None) -> str:
    stream = await stack.client().responses.create(model="synthetic", input="hi", max_output_tokens=tokens, stream=True)
    text = ""
    sequences = []
    async for event in stream:
        sequences.append(event.sequence_number)
        if event.type == "response.output_text.delta":
            text += event.delta
            if shown is not None:
                shown.set()
    assert sequences == list(range(len(sequences))), "a hole or a repeat"
    return text


def expected(tokens: int) -> str:
    return "".join(f" t{i}" for i in range(tokens))


async def test_open_streams_go_on_while_the_primary_is_killed(tmp_path: Path) -> None:
    trio = brokers.SentinelTrio(tmp_path / "trio")
    try:
        await asyncio.to_thread(trio.start)
        async with running(tmp_path / "data", "--engine", "synthetic", redis_url=trio.url, lease_ms="1000") as stack:
            shown = [asyncio.Event() for _ in range(8)]
            streams = [asyncio.create_task(text_of(stack, TOKENS, event)) for event in shown]
            async with asyncio.timeout(30):
                await asyncio.gather(*(event.wait() for event in shown))
            trio.primary.send(signal.SIGKILL)
            async with asyncio.timeout(90):
                assert await asyncio.gather(*streams) == [expected(TOKENS)] * 8
            assert await text_of(stack, 5) == expected(5)
    finally:
        trio.stop()


async def test_a_cluster_serves_streams_of_all_partitions(tmp_path: Path, cluster: brokers.Cluster) -> None:
    async with running(tmp_path / "data", "--engine", "synthetic", redis_url=cluster.url, gateways=2) as stack:
        texts = await asyncio.gather(*(text_of(stack, 50) for _ in range(32)))
        assert texts == [expected(50)] * 32
        made = await stack.client().responses.create(model="synthetic", input="hi", max_output_tokens=5)
        again = await stack.client(2).responses.retrieve(made.id)
        assert again.output_text == made.output_text == expected(5)
