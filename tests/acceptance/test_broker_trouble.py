"""A broker that is down, frozen, full or read-only: requests fail fast with a clear 503, and work when it is over."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from streams.embedded import CONF
from tests.acceptance.stack import RunningStack, running
from tests.brokers import Node
from tests.ports import HOST
from tests.waiting import until

pytestmark = pytest.mark.timeout(240)

FAST_S = 8.0
"""A broker timeout is 5 s: a broker that is frozen can not be told from a slow one before."""


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path, "server", CONF)
    await asyncio.to_thread(node.start)
    yield node
    node.stop()


@pytest.fixture
async def stack(node: Node, tmp_path: Path) -> AsyncIterator[RunningStack]:
    url = f"redis://{HOST}:{node.port}/0"
    async with running(tmp_path / "data", "--engine", "synthetic", redis_url=url) as stack:
        yield stack


async def ask(stack: RunningStack, **changes: Any) -> tuple[httpx.Response, float]:
    body = {"model": "synthetic", "input": "hi", "max_output_tokens": 3} | changes
    async with httpx.AsyncClient(timeout=60) as client:
        began = time.monotonic()
        answer = await client.post(f"{stack.url()}/v1/responses", json=body)
        return answer, time.monotonic() - began


async def is_refused_fast(stack: RunningStack, says: str) -> None:
    for stream in (False, True):
        answer, took_s = await ask(stack, stream=stream)
        assert answer.status_code == 503, answer.text
        assert answer.headers["retry-after"] == "1"
        error = answer.json()["error"]
        assert error["code"] in ("broker_unavailable", "broker_timeout")
        assert says in error["message"]
        assert took_s < FAST_S


async def serves(stack: RunningStack) -> None:
    async def look() -> bool:
        answer, _ = await ask(stack)
        return answer.status_code == 200

    await until(look, timeout_s=40, what="a served request")


async def test_a_broker_that_is_full_refuses_and_serves_again_when_there_is_room(
    stack: RunningStack, node: Node
) -> None:
    await serves(stack)
    node.client.config_set("maxmemory", 1_000_000)
    await is_refused_fast(stack, "the broker is full")
    node.client.config_set("maxmemory", 0)
    await serves(stack)


async def test_a_broker_that_may_not_write_refuses_and_serves_again_when_it_may(
    stack: RunningStack, node: Node
) -> None:
    await serves(stack)
    node.client.config_set("min-replicas-to-write", 1)
    await is_refused_fast(stack, "without its replicas")
    node.client.config_set("min-replicas-to-write", 0)
    await serves(stack)
    node.client.replicaof(HOST, "1")
    await is_refused_fast(stack, "the broker is read-only")
    node.client.replicaof("NO", "ONE")
    await serves(stack)


async def test_a_broker_that_is_frozen_or_down_refuses_and_serves_again_when_it_is_back(
    stack: RunningStack, node: Node
) -> None:
    await serves(stack)
    node.send(signal.SIGSTOP)
    await is_refused_fast(stack, "did not answer in time")
    node.send(signal.SIGCONT)
    await serves(stack)
    node.stop()
    await is_refused_fast(stack, "away")
    await asyncio.to_thread(node.start)
    await serves(stack)


async def test_an_open_stream_waits_for_a_full_broker_and_loses_nothing(stack: RunningStack, node: Node) -> None:
    text: list[str] = []
    stream = await stack.client().responses.create(model="synthetic", input="hi", max_output_tokens=100, stream=True)
    async for event in stream:
        if event.type == "response.output_text.delta":
            text.append(event.delta)
        if len(text) == 20:
            node.client.config_set("maxmemory", 1_000_000)
            asyncio.get_running_loop().call_later(2, lambda: node.client.config_set("maxmemory", 0))
            text.append("")
    assert "".join(text) == "".join(f" t{i}" for i in range(100))
