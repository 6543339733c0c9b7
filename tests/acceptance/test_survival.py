"""A response outlives the worker that generates it and the gateway that serves it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import httpx
import openai
import pytest

from tests.acceptance.stack import is_alive, running
from tests.waiting import until

pytestmark = pytest.mark.timeout(240)

FAST = {"lease_ms": "2000", "synthetic_tokens_per_second": "50"}


def expected_text(tokens: int) -> str:
    return "".join(f" t{i}" for i in range(tokens))


async def read_stream(client: openai.AsyncOpenAI, tokens: int, seen: list[int]) -> tuple[list[int], str, object]:
    numbers, text, last = [], [], None
    stream = await client.responses.create(model="synthetic", input="hi", max_output_tokens=tokens, stream=True)
    async for event in stream:
        numbers.append(event.sequence_number)
        seen.append(event.sequence_number)
        if event.type == "response.output_text.delta":
            text.append(event.delta)
        last = event
    return numbers, "".join(text), last


async def test_with_32_streams_running_two_kills_of_workers_leave_no_hole_and_no_repeat(tmp_path: Path) -> None:
    async with running(tmp_path / "data", "--engine", "synthetic", "--workers", "2", gateways=2, **FAST) as stack:
        clients = [stack.client(1), stack.client(2)]
        seen: list[int] = []
        streams = [asyncio.create_task(read_stream(clients[i % 2], 400, seen)) for i in range(32)]
        await until(lambda: len(seen) > 32 * 40, what="40 events of each")
        first = stack.kill("inference-1")
        await until(lambda: stack.pids().get("inference-1", first) != first, what="the worker's restart")
        await until(lambda: len(seen) > 32 * 150, timeout_s=60, what="150 events of each")
        stack.kill("inference-2")
        results = await asyncio.gather(*streams)
        for numbers, text, last in results:
            assert numbers == list(range(len(numbers)))
            assert text == expected_text(400)
            assert last.type == "response.incomplete"  # type: ignore[attr-defined]
            assert last.response.usage.output_tokens == 400  # type: ignore[attr-defined]


async def test_a_stopped_worker_that_wakes_up_writes_nothing_and_serves_again(tmp_path: Path) -> None:
    async with running(tmp_path / "data", "--engine", "synthetic", "--workers", "2", gateways=1, **FAST) as stack:
        client = stack.client()
        seen: list[int] = []
        streams = [asyncio.create_task(read_stream(client, 400, seen)) for _ in range(8)]
        await until(lambda: len(seen) > 8 * 30, what="30 events of each")
        zombie = stack.kill("inference-1", signal.SIGSTOP)
        results = None
        try:
            await until(lambda: len(seen) > 8 * 300, timeout_s=60, what="the other worker to take over")
        finally:
            os.kill(zombie, signal.SIGCONT)
        results = await asyncio.gather(*streams)
        for numbers, text, _ in results:
            assert numbers == list(range(len(numbers)))
            assert text == expected_text(400)
        await until(lambda: "lease_lost" in stack.text, what="the zombie to notice")
        assert is_alive(zombie)
        stack.kill("inference-2")
        numbers, text, _ = await read_stream(client, 20, [])
        assert text == expected_text(20)


async def test_a_killed_gateway_is_replaced_by_the_other_with_exactly_the_rest(tmp_path: Path) -> None:
    async with running(tmp_path / "data", "--engine", "synthetic", gateways=2, **FAST) as stack:
        whole: list[int] = []
        text: list[str] = []
        response_id = ""
        with pytest.raises((openai.APIConnectionError, httpx.TransportError)):  # noqa: PT012
            stream = await stack.client(1).responses.create(
                model="synthetic", input="hi", max_output_tokens=200, stream=True
            )
            async for event in stream:
                whole.append(event.sequence_number)
                if event.type == "response.created":
                    response_id = event.response.id
                if event.type == "response.output_text.delta":
                    text.append(event.delta)
                if event.sequence_number == 50:
                    stack.kill("ingress-1")
        rest = await stack.client(2).responses.retrieve(response_id, stream=True, starting_after=whole[-1])
        async for event in rest:
            whole.append(event.sequence_number)
            if event.type == "response.output_text.delta":
                text.append(event.delta)
        assert whole == list(range(len(whole)))
        assert "".join(text) == expected_text(200)


async def test_a_chat_stream_cut_with_its_gateway_goes_on_by_location_and_last_event_id(tmp_path: Path) -> None:
    async with running(tmp_path / "data", "--engine", "synthetic", gateways=2, **FAST) as stack:
        body = {
            "model": "synthetic",
            "messages": [{"role": "user", "content": "hi"}],
            "stream": True,
            "max_tokens": 150,
            "stream_options": {"include_usage": True},
        }
        lines: list[str] = []
        async with httpx.AsyncClient(timeout=60) as client:
            with pytest.raises(httpx.TransportError):  # noqa: PT012
                async with client.stream("POST", f"{stack.url(1)}/v1/chat/completions", json=body) as answer:
                    location = answer.headers["location"]
                    async for line in answer.aiter_lines():
                        lines.append(line)
                        if len(lines) == 90:
                            stack.kill("ingress-1")
            # what was cut off in the middle of an event is asked for again
            last = max(i for i, line in enumerate(lines) if line.startswith("id: "))
            lines = lines[: last + 1]
            headers = {"last-event-id": lines[last].removeprefix("id: ")}
            async with client.stream("GET", stack.url(2) + location, headers=headers) as answer:
                assert answer.status_code == 200
                lines += [line async for line in answer.aiter_lines()]
        data = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        assert "".join(d["choices"][0]["delta"].get("content", "") for d in data if d["choices"]) == expected_text(150)
        assert data[-1]["usage"]["completion_tokens"] == 150
        assert [line for line in lines if line == "data: [DONE]"] == ["data: [DONE]"]


async def test_streams_go_on_after_the_broker_was_killed(tmp_path: Path) -> None:
    async with running(tmp_path / "data", "--engine", "synthetic", gateways=1, **FAST) as stack:
        seen: list[int] = []
        streams = [asyncio.create_task(read_stream(stack.client(), 200, seen)) for _ in range(4)]
        await until(lambda: len(seen) > 4 * 30, what="30 events of each")
        stack.kill("broker")
        for numbers, text, _ in await asyncio.gather(*streams):
            assert numbers == list(range(len(numbers)))
            assert text == expected_text(200)


async def test_a_worker_that_is_told_to_stop_hands_over_at_once(tmp_path: Path) -> None:
    settings = FAST | {"drain_grace_s": "0", "lease_ms": "30000"}
    async with running(tmp_path / "data", "--engine", "synthetic", "--workers", "2", gateways=1, **settings) as stack:
        seen: list[int] = []
        streams = [asyncio.create_task(read_stream(stack.client(), 200, seen)) for _ in range(8)]
        await until(lambda: len(seen) > 8 * 30, what="30 events of each")
        stack.kill("inference-1", signal.SIGTERM)
        async with asyncio.timeout(25):  # a lease would be 30 s
            results = await asyncio.gather(*streams)
        for numbers, text, _ in results:
            assert numbers == list(range(len(numbers)))
            assert text == expected_text(200)
