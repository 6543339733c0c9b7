"""A stream resumed at each of its events gives the same rest, from Redis and from SQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance.stack import RunningStack, running
from tests.waiting import until

pytestmark = pytest.mark.timeout(240)

SETTINGS = {"synthetic_tokens_per_second": "500", "log_ttl_s": "2", "lease_ms": "2000"}


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[RunningStack]:
    async with running(tmp_path / "data", "--engine", "synthetic", gateways=2, **SETTINGS) as stack:
        yield stack


async def collect(stream: AsyncIterator[object]) -> list[dict[str, object]]:
    return [event.model_dump() async for event in stream]  # type: ignore[attr-defined]


async def test_resumed_at_every_event_from_either_gateway_the_rest_is_the_same_from_redis_and_from_sql(
    stack: RunningStack,
) -> None:
    created = await stack.client().responses.create(model="synthetic", input="hi", max_output_tokens=20, stream=True)
    first = await collect(created)
    response_id = first[0]["response"]["id"]  # type: ignore[index]
    assert [e["sequence_number"] for e in first] == list(range(len(first)))
    for source in ("redis", "sql"):
        if source == "sql":
            await until(lambda: log_is_gone(stack, response_id), what="the log to expire")
        for after in range(len(first)):
            for gateway in (1, 2):
                client = stack.client(gateway)
                rest = await client.responses.retrieve(response_id, stream=True, starting_after=after)
                assert await collect(rest) == first[after + 1 :], (source, gateway, after)
        assert await collect(await stack.client().responses.retrieve(response_id, stream=True)) == first
        whole = await stack.client().responses.retrieve(response_id)
        assert whole.model_dump() == first[-1]["response"] | {"output": whole.model_dump()["output"]}
        assert whole.output_text == "".join(f" t{i}" for i in range(20))


async def log_is_gone(stack: RunningStack, response_id: str) -> bool:
    from streams.connect import Broker
    from streams.embedded import broker_url
    from streams.keys import log_key

    broker = Broker(broker_url(stack.data_dir), timeout_s=2, connections=1)
    try:
        return not await broker.commands.exists(log_key(response_id))  # type: ignore[arg-type]
    finally:
        await broker.close()


async def test_a_chat_stream_resumes_at_every_id_from_redis_and_from_sql(stack: RunningStack) -> None:
    body = {"model": "synthetic", "messages": [{"role": "user", "content": "x"}], "stream": True, "max_tokens": 10}
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.post(f"{stack.url()}/v1/chat/completions", json=body)
        location = answer.headers["location"]
        events = [event for event in answer.text.split("\n\n") if event]
        assert events[-1] == "data: [DONE]"
        for source in ("redis", "sql"):
            if source == "sql":
                response_id = location.split("/")[-1].split("?")[0].replace("chatcmpl-", "resp_")
                await until(lambda: log_is_gone(stack, response_id), what="the log to expire")  # noqa: B023
            for i, event in enumerate(events[:-2]):
                entry_id = event.split("\nid: ")[1]
                rest = await client.get(stack.url(2) + location, headers={"last-event-id": entry_id})
                assert [e for e in rest.text.split("\n\n") if e] == events[i + 1 :], (source, entry_id)
            last = events[-2].split("\nid: ")[1]
            assert (await client.get(stack.url() + location, headers={"last-event-id": last})).status_code == 204


async def test_the_official_stream_helper_accumulates_a_replay(stack: RunningStack) -> None:
    client = stack.client()
    async with client.responses.stream(model="synthetic", input="hi", max_output_tokens=8) as stream:
        final = None
        async for event in stream:
            final = event
    assert final is not None
    assert final.type == "response.incomplete"
    response_id = final.response.id
    async with client.responses.stream(response_id=response_id, starting_after=5) as stream:
        numbers = [event.sequence_number async for event in stream]
    assert numbers[0] == 6


async def test_cursors_that_can_not_be_served_are_errors_and_never_a_silent_skip(stack: RunningStack) -> None:
    created = await stack.client().responses.create(model="synthetic", input="hi", max_output_tokens=5)
    url = f"{stack.url(2)}/v1/responses/{created.id}?stream=true"
    async with httpx.AsyncClient(timeout=30) as client:
        for query in ("-1", "", "x", "1.5", "999", "1" * 40, "٣"):
            answer = await client.get(url, params={"stream": "true", "starting_after": query})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_cursor"), query
        for header in ("-1", "", "0-0", "$", "1-99", "1", "01-3", "1-3-5", "9" * 50 + "-1"):
            answer = await client.get(url, headers={"last-event-id": header})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_cursor"), header
        answer = await client.get(url, headers={"last-event-id": "7-5"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "stream_diverged")
        answer = await client.get(f"{url}&starting_after=3", headers={"last-event-id": "1-5"})
        assert answer.status_code == 400
        answer = await client.get(f"{url}&starting_after=4", headers={"last-event-id": "1-5"})
        assert answer.status_code == 200
