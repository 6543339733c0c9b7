"""SIGTERM and Ctrl-C: a gateway sends its clients elsewhere, a worker hands over, `up` stops in order."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.stack import is_alive, running
from tests.waiting import until

pytestmark = pytest.mark.timeout(240)

SLOW = {"synthetic_tokens_per_second": "20"}
TOKENS = 120
BODY: dict[str, Any] = {"model": "synthetic", "input": "hi", "max_output_tokens": TOKENS}
TEXT = "".join(f" t{i}" for i in range(TOKENS))


async def test_a_gateway_that_is_told_to_stop_ends_its_streams_with_a_hint_and_another_has_the_rest(
    tmp_path: Path,
) -> None:
    async with running(tmp_path / "data", "--engine", "synthetic", gateways=2, **SLOW) as stack:
        lines: list[str] = []
        async with httpx.AsyncClient(timeout=60) as client:
            async with client.stream("POST", f"{stack.url(1)}/v1/responses", json=BODY | {"stream": True}) as answer:
                location = answer.headers["location"]
                async for line in answer.aiter_lines():
                    lines.append(line)
                    if len(lines) == 60:
                        told = time.monotonic()
                        stack.kill("ingress-1", signal.SIGTERM)
            assert time.monotonic() - told < 3, "it ends in time, and whole: no transport error"
            assert lines[-2] == "retry: 1000"
            assert lines[-1].startswith(": this gateway drains")
            assert "data: [DONE]" not in lines
            last = [line for line in lines if line.startswith("id: ")][-1].removeprefix("id: ")
            answer = await client.get(stack.url(2) + location, headers={"last-event-id": last})
            lines += answer.text.split("\n")
        numbers = [
            int(line.partition('"sequence_number":')[2].partition("}")[0].partition(",")[0])
            for line in lines
            if '"sequence_number":' in line
        ]
        assert numbers == list(range(len(numbers)))
        assert lines.count("data: [DONE]") == 1


async def test_a_client_that_waits_for_a_whole_answer_is_told_where_it_will_be(tmp_path: Path) -> None:
    async with running(tmp_path / "data", "--engine", "synthetic", gateways=2, **SLOW) as stack:
        async with httpx.AsyncClient(timeout=60) as client:
            asking = asyncio.create_task(client.post(f"{stack.url(1)}/v1/responses", json=BODY))
            await until(lambda: running_responses(stack.url(1)), what="the viewer")
            stack.kill("ingress-1", signal.SIGTERM)
            await until(lambda: is_refused(stack.url(1)), timeout_s=2, what="new connections to be refused")
            answer = await asking
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "gateway_drains"
            assert answer.headers["x-should-retry"] == "false"
            where = answer.headers["location"].partition("?")[0]

            async def is_complete() -> dict[str, Any] | None:
                found: dict[str, Any] = (await client.get(stack.url(2) + where)).json()
                return found if found["status"] == "incomplete" else None

            found = await until(is_complete, what="the end of the response")
        assert found is not None
        assert found["output"][0]["content"][0]["text"] == TEXT


async def is_refused(url: str) -> bool:
    try:
        async with httpx.AsyncClient() as client:
            await client.get(f"{url}/healthz")
    except httpx.ConnectError:
        return True
    return False


async def running_responses(url: str) -> bool:
    async with httpx.AsyncClient() as client:
        return "openchat_viewers 1.0" in (await client.get(f"{url}/metrics")).text


async def test_a_worker_that_is_told_to_stop_hands_over_and_the_next_token_comes_within_two_seconds(
    tmp_path: Path,
) -> None:
    settings = SLOW | {"drain_grace_s": "0", "lease_ms": "30000"}
    async with running(tmp_path / "data", "--engine", "synthetic", "--workers", "2", **settings) as stack:
        gaps: list[float] = []
        text: list[str] = []
        before = time.monotonic()
        stream = await stack.client().responses.create(**BODY, stream=True)
        async for event in stream:
            if event.type != "response.output_text.delta":
                continue
            text.append(event.delta)
            gaps.append(time.monotonic() - before)
            before = time.monotonic()
            if len(text) == 30:
                busy = [name for name in ("inference-1", "inference-2") if await is_busy(stack, name)]
                stack.kill(busy[0], signal.SIGTERM)
        assert "".join(text) == TEXT
        assert max(gaps[30:]) < 2.0


async def is_busy(stack: Any, name: str) -> bool:
    from streams.connect import Broker
    from streams.embedded import broker_url
    from streams.queue import RequestQueue

    broker = Broker(broker_url(stack.data_dir), timeout_s=2, connections=1)
    try:
        holders = await RequestQueue(broker.commands, "synthetic").holders("interactive")
    finally:
        await broker.close()
    return any(consumer.startswith(name) and held for consumer, held in holders.items())


async def test_ctrl_c_twice_kills_what_still_drains_in_order_and_what_was_begun_goes_on_at_the_next_start(
    tmp_path: Path,
) -> None:
    settings = SLOW | {"drain_grace_s": "600"}
    async with running(tmp_path / "data", "--engine", "synthetic", **settings) as stack:
        created = await stack.client().responses.create(**BODY, background=True)
        pids = stack.pids()
        stack.process.send_signal(signal.SIGINT)
        await until(lambda: "worker_drains" in stack.text or not is_alive(pids["ingress-1"]), what="the gateway's end")
        stack.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(20):
            await stack.process.wait()
        assert not any(is_alive(pid) for pid in pids.values())
    async with running(tmp_path / "data", "--engine", "synthetic", **settings) as stack:

        async def is_complete() -> Any:
            found = await stack.client().responses.retrieve(created.id)
            return found if found.status == "incomplete" else None

        found = await until(is_complete, timeout_s=40, what="the end of the response")
        assert found.output_text == TEXT
        stack.process.send_signal(signal.SIGINT)
        stack.process.send_signal(signal.SIGINT)
