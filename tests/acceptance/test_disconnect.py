"""Who leaves, who cancels, who deletes: shown through real processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.acceptance.stack import RunningStack, running
from tests.waiting import until

pytestmark = pytest.mark.timeout(240)

ONE_SLOT = {"slots": "1", "synthetic_tokens_per_second": "20"}
CONTINUE = {"x-openchat-on-disconnect": "continue"}
LONG = 2000
"""Tokens: longer than any of these tests."""


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[RunningStack]:
    async with running(tmp_path / "data", "--engine", "synthetic", gateways=2, **ONE_SLOT) as stack:
        yield stack


async def begin(stack: RunningStack, **changes: Any) -> tuple[Any, str]:
    """A stream that has shown a token, and its id."""
    body = {"model": "synthetic", "input": "hi", "max_output_tokens": LONG, "stream": True} | changes
    stream = await stack.client().responses.create(**body)
    response_id = ""
    async for event in stream:
        if event.type == "response.created":
            response_id = event.response.id
        if event.type == "response.output_text.delta":
            break
    return stream, response_id


async def status_of(stack: RunningStack, response_id: str, gateway: int = 2) -> str:
    return str((await stack.client(gateway).responses.retrieve(response_id)).status)


async def has_status(stack: RunningStack, response_id: str, status: str) -> None:
    async def look() -> bool:
        return await status_of(stack, response_id) == status

    await until(look, what=f"the status {status}")


async def next_first_token(stack: RunningStack) -> float:
    """Ask for a short response; when its first text came."""
    stream, _ = await begin(stack, max_output_tokens=3)
    came = time.monotonic()
    async for _ in stream:
        pass
    return came


async def test_a_client_that_hangs_up_frees_its_slot_within_a_second(stack: RunningStack) -> None:
    stream, response_id = await begin(stack)
    waiting = asyncio.create_task(next_first_token(stack))
    await until(lambda: is_queued(stack, 2), what="the second request in the queue")
    left = time.monotonic()
    await stream.close()
    assert await waiting - left < 1.0
    await has_status(stack, response_id, "cancelled")


async def is_queued(stack: RunningStack, entries: int) -> bool:
    from streams.connect import Broker
    from streams.embedded import broker_url
    from streams.queue import RequestQueue

    broker = Broker(broker_url(stack.data_dir), timeout_s=2, connections=1)
    try:
        return await RequestQueue(broker.commands, "synthetic").depth("interactive") == entries
    finally:
        await broker.close()


async def test_a_background_response_goes_on_without_anybody(stack: RunningStack) -> None:
    stream, response_id = await begin(stack, background=True, max_output_tokens=40)
    await stream.close()
    await has_status(stack, response_id, "incomplete")
    whole = await stack.client(2).responses.retrieve(response_id)
    assert whole.background
    assert whole.output_text == "".join(f" t{i}" for i in range(40))


async def test_a_background_response_is_answered_at_once_and_can_be_followed(stack: RunningStack) -> None:
    made = await stack.client().responses.create(model="synthetic", input="hi", max_output_tokens=20, background=True)
    assert made.status in ("queued", "in_progress")
    stream = await stack.client(2).responses.retrieve(made.id, stream=True)
    numbers = [event.sequence_number async for event in stream]
    assert numbers == list(range(len(numbers)))


async def test_the_header_lets_a_foreground_response_go_on(stack: RunningStack) -> None:
    stream, response_id = await begin(stack, max_output_tokens=40, extra_headers=CONTINUE)
    await stream.close()
    await has_status(stack, response_id, "incomplete")


async def test_a_wrong_header_is_refused_by_name(stack: RunningStack) -> None:
    with pytest.raises(openai.BadRequestError, match="must be cancel or continue"):
        await begin(stack, extra_headers={"x-openchat-on-disconnect": "maybe"})
    with pytest.raises(openai.BadRequestError, match="must be continue, restart or fail"):
        await begin(stack, extra_headers={"x-openchat-takeover": "maybe"})


async def test_a_viewer_at_another_gateway_keeps_a_response_alive(stack: RunningStack) -> None:
    stream, response_id = await begin(stack, max_output_tokens=120)
    other = await stack.client(2).responses.retrieve(response_id, stream=True)
    texts = []
    async for event in other:
        if event.type == "response.output_text.delta":
            texts.append(event.delta)
            if len(texts) == 5:
                await stream.close()
    assert "".join(texts) == "".join(f" t{i}" for i in range(120))


async def test_the_last_viewer_that_leaves_another_gateway_ends_the_response(stack: RunningStack) -> None:
    stream, response_id = await begin(stack)
    other = await stack.client(2).responses.retrieve(response_id, stream=True)
    await anext(aiter(other))
    await stream.close()
    await other.close()
    await has_status(stack, response_id, "cancelled")


async def test_a_client_that_hangs_up_before_the_first_token_ends_its_response(tmp_path: Path) -> None:
    settings = ONE_SLOT | {"synthetic_ttft_ms": "60000"}
    async with running(tmp_path / "data", "--engine", "synthetic", **settings) as stack:
        for is_stream in (True, False):
            known = await metric(stack, "openchat_disconnected_total")
            task = asyncio.create_task(ask(stack, is_stream))
            await until(lambda: is_queued(stack, 1), what="the request at its worker")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await until(lambda: is_queued(stack, 0), timeout_s=5, what="the slot to be free")
            assert await metric(stack, "openchat_disconnected_total") == known + 1


async def ask(stack: RunningStack, is_stream: bool) -> None:
    body = {"model": "synthetic", "messages": [{"role": "user", "content": "x"}], "stream": is_stream}
    async with httpx.AsyncClient(timeout=60) as client:
        await client.post(f"{stack.url()}/v1/chat/completions", json=body)


async def metric(stack: RunningStack, name: str) -> float:
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{stack.url()}/metrics")).text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


async def test_within_the_grace_time_a_client_may_come_back(tmp_path: Path) -> None:
    settings = {"synthetic_tokens_per_second": "20", "disconnect_grace_s": "3"}
    async with running(tmp_path / "data", "--engine", "synthetic", gateways=2, **settings) as stack:
        stream, response_id = await begin(stack, max_output_tokens=120)
        await stream.close()
        again = await stack.client(2).responses.retrieve(response_id, stream=True)
        numbers = [event.sequence_number async for event in again]
        assert numbers == list(range(len(numbers)))
        assert await status_of(stack, response_id) == "incomplete"
        stream, response_id = await begin(stack)
        await stream.close()
        await has_status(stack, response_id, "cancelled")


async def test_a_gateway_that_drains_is_no_disconnect(stack: RunningStack) -> None:
    import signal

    _, response_id = await begin(stack, max_output_tokens=100)
    drained = stack.kill("ingress-1", signal.SIGTERM)
    await until(lambda: stack.pids().get("ingress-1", drained) != drained, what="the gateway's restart")
    await has_status(stack, response_id, "incomplete")


async def test_a_cancel_at_any_gateway_takes_effect_at_once_and_may_be_repeated(stack: RunningStack) -> None:
    stream, response_id = await begin(stack, background=True)
    waiting = asyncio.create_task(next_first_token(stack))
    await until(lambda: is_queued(stack, 2), what="the second request in the queue")
    asked = time.monotonic()
    for gateway in (2, 1):
        cancelled = await stack.client(gateway).responses.cancel(response_id)
        assert cancelled.status == "cancelled"
    assert await waiting - asked < 1.0
    last = [event async for event in stream][-1]
    assert (last.type, last.response.status) == ("response.incomplete", "cancelled")


async def test_a_queued_response_is_cancelled_without_a_worker_and_never_runs(stack: RunningStack) -> None:
    running_stream, running_id = await begin(stack, background=True)
    queued = await stack.client().responses.create(model="synthetic", input="x", background=True)
    cancelled = await stack.client(2).responses.cancel(queued.id)
    assert (cancelled.status, cancelled.output_text) == ("cancelled", "")
    await stack.client().responses.cancel(running_id)
    await running_stream.close()
    await until(lambda: is_queued(stack, 0), what="the bookkeeping")
    assert await status_of(stack, queued.id) == "cancelled"


async def test_a_finished_response_is_not_changed_by_a_cancel(stack: RunningStack) -> None:
    done = await stack.client().responses.create(model="synthetic", input="x", max_output_tokens=3)
    assert (await stack.client(2).responses.cancel(done.id)).status == "incomplete"
    with pytest.raises(openai.NotFoundError):
        await stack.client().responses.cancel("resp_" + "0" * 32)


async def test_a_deleted_response_is_gone_for_everybody_and_stays_gone(stack: RunningStack) -> None:
    from streams.connect import Broker
    from streams.embedded import broker_url

    stream, live = await begin(stack, background=True)
    queued = (await stack.client().responses.create(model="synthetic", input="secret", background=True)).id
    for response_id in (queued, live):
        await stack.client(2).responses.delete(response_id)
        for gateway in (1, 2):
            with pytest.raises(openai.NotFoundError):
                await stack.client(gateway).responses.retrieve(response_id)
            with pytest.raises(openai.NotFoundError):
                await stack.client(gateway).responses.delete(response_id)
    assert [event async for event in stream][-1].response.status == "cancelled"
    await next_first_token(stack)  # the worker is free and well
    broker = Broker(broker_url(stack.data_dir), timeout_s=2, connections=1)
    try:
        assert not [key async for key in broker.commands.scan_iter("*response:*") if queued.encode() in key]
        assert await broker.commands.xlen("oc:dead") == 0
    finally:
        await broker.close()


async def test_an_archived_response_is_deleted_from_the_archive_too(tmp_path: Path) -> None:
    settings = ONE_SLOT | {"log_ttl_s": "1"}
    async with running(tmp_path / "data", "--engine", "synthetic", **settings) as stack:
        done = await stack.client().responses.create(model="synthetic", input="x", max_output_tokens=3)
        await until(lambda: log_is_gone(stack, done.id), what="the log to expire")
        assert (await stack.client().responses.retrieve(done.id)).status == "incomplete"
        await stack.client().responses.delete(done.id)
        with pytest.raises(openai.NotFoundError):
            await stack.client().responses.retrieve(done.id)


async def log_is_gone(stack: RunningStack, response_id: str) -> bool:
    from streams.connect import Broker
    from streams.embedded import broker_url
    from streams.keys import log_key

    broker = Broker(broker_url(stack.data_dir), timeout_s=2, connections=1)
    try:
        return not await broker.commands.exists(log_key(response_id))  # type: ignore[arg-type]
    finally:
        await broker.close()
