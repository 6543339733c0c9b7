"""Replays at speed and forks, through real processes and at another gateway than the one that was asked first."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from openai.types.responses import Response

from schemas.events import Entry
from schemas.ids import ResponseId
from streams.connect import Broker
from streams.embedded import broker_url
from streams.logs import ResponseLogs
from tests.acceptance.stack import RunningStack, running
from tests.waiting import until

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]

LATE_S = 1.5
"""How late a busy machine may be."""
SETTINGS = {"synthetic_tokens_per_second": "50", "log_ttl_s": "2", "lease_ms": "2000", "heartbeat_s": "1"}
LATE_FIRST_TOKEN = {"synthetic-ttft-ms": "1200"}
FIRST_TEXT = 5
"""Sequence of the first token of the synthetic engine."""


def text_of(tokens: int) -> str:
    return "".join(f" t{i}" for i in range(tokens))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningStack]:
    data_dir: Path = tmp_path_factory.mktemp("stack") / "data"
    async with running(data_dir, "--engine", "synthetic", gateways=2, **SETTINGS) as stack:
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=60) as client:
        yield client


async def ask(stack: RunningStack, tokens: int = 20, **changes: Any) -> Response:
    """A response, finished unless the changes say otherwise."""
    body: dict[str, Any] = {"model": "synthetic", "input": "hi", "max_output_tokens": tokens, **changes}
    response: Response = await stack.client().responses.create(**body)
    return response


async def log_of(stack: RunningStack, response_id: str) -> list[Entry]:
    """Without fences; empty where it is in the archive alone."""
    broker = Broker(broker_url(stack.data_dir), timeout_s=2, connections=1)
    try:
        logs = ResponseLogs(broker.commands, bus_max_entries=1)
        raw = ResponseId(response_id)
        return [e for e in await logs.read(raw) if not e.id.is_fence] if await logs.exists(raw) else []
    finally:
        await broker.close()


async def is_archived(stack: RunningStack, response_id: str) -> bool:
    return not await log_of(stack, response_id)


def events_of(text: str) -> list[str]:
    """Without comments."""
    lines = [line for line in text.split("\n") if not line.startswith(":")]
    return [event for event in "\n".join(lines).split("\n\n") if event]


async def timed(http: httpx.AsyncClient, url: str, **request: Any) -> tuple[str, list[tuple[float, int]]]:
    """The whole stream; and the number of each event of the Responses API, with the seconds after which it came."""
    text, came = "", []
    began = time.monotonic()
    async with http.stream("GET", url, **request) as answer:
        async for line in answer.aiter_lines():
            text += line + "\n"
            if line.startswith("data: {"):
                came.append((time.monotonic() - began, json.loads(line[6:]).get("sequence_number", 0)))
    return text, came


async def test_a_replay_comes_at_its_original_times_or_faster_and_the_archive_sends_the_same_bytes(
    stack: RunningStack, http: httpx.AsyncClient
) -> None:
    made = await ask(stack, metadata=LATE_FIRST_TOKEN)
    entries = await log_of(stack, made.id)
    times_s = [entry.event.t / 1000 for entry in entries]
    assert times_s[-1] > 1.5
    urls = [f"{stack.url(2)}/v1/{path}/{made.id}?stream=true" for path in ("responses", "chat/completions")]
    whole = {url: events_of((await http.get(url)).text) for url in urls}
    for source in ("redis", "archive"):
        if source == "archive":
            await until(lambda: is_archived(stack, made.id), what="the log to expire")
        asked = [(url, speed) for url in urls for speed in (1, 4)]
        replays = await asyncio.gather(*(timed(http, f"{url}&speed={speed}") for url, speed in asked))
        for (url, speed), (text, came) in zip(asked, replays, strict=True):
            assert events_of(text) == whole[url], (source, speed)
            assert times_s[-1] / speed <= came[-1][0] < times_s[-1] / speed + LATE_S
            if url == urls[0]:
                assert all(t >= times_s[number] / speed for t, number in came)
            if speed == 1:
                assert ": ping" in text, "the gap before the first token has its heartbeats"
        assert [events_of((await http.get(url)).text) for url in urls] == list(whole.values())
    for path in ("text", "ui"):
        began = time.monotonic()
        paced = await http.get(f"{stack.url(2)}/v1/responses/{made.id}/{path}?speed=8")
        assert time.monotonic() - began >= times_s[-1] / 8 - times_s[FIRST_TEXT] / 8
        assert paced.text == (await http.get(f"{stack.url(2)}/v1/responses/{made.id}/{path}")).text
    cursor = {"last-event-id": str(entries[FIRST_TEXT].id)}
    text, came = await timed(http, f"{urls[0]}&speed=1", headers=cursor)
    assert events_of(text) == whole[urls[0]][FIRST_TEXT + 1 :]
    assert came[0][0] < LATE_S / 2, "the clock starts with the first event that is sent"


async def test_a_live_response_is_replayed_and_then_followed_and_a_viewer_may_leave(
    stack: RunningStack, http: httpx.AsyncClient
) -> None:
    made = await ask(stack, 100, background=True)
    await until(lambda: has_text(stack, made.id, 20), what="some text")
    url = f"{stack.url(2)}/v1/responses/{made.id}?stream=true"
    async with http.stream("GET", f"{url}&speed=0.1") as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                break
    text, came = await timed(http, f"{url}&speed=2")
    assert events_of(text) == events_of((await http.get(url)).text)
    assert [number for _, number in came] == list(range(len(came)))

    async def is_left() -> bool:
        return "openchat_viewers 0.0" in (await http.get(f"{stack.url(2)}/metrics")).text

    await until(is_left, what="the viewer who left to be gone")


async def has_text(stack: RunningStack, response_id: str, tokens: int) -> bool:
    return len(await log_of(stack, response_id)) >= FIRST_TEXT + tokens


async def test_a_speed_that_is_none_is_refused(stack: RunningStack, http: httpx.AsyncClient) -> None:
    made = await ask(stack, 2)
    for query in (
        "speed=1",
        "stream=false&speed=1",
        "stream=true&speed=0",
        "stream=true&speed=x",
        "stream=true&speed=",
    ):
        answer = await http.get(f"{stack.url()}/v1/responses/{made.id}?{query}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "speed"), query


async def fork(stack: RunningStack, response_id: str, gateway: int = 2, **body: Any) -> Response:
    """By the official client, to which the route is unknown."""
    client = stack.client(gateway)
    return await client.post(f"/responses/{response_id}/fork", cast_to=Response, body=body)


async def test_a_fork_of_a_live_a_finished_and_an_archived_response_goes_on_exactly(stack: RunningStack) -> None:
    live = await ask(stack, 150, background=True)
    await until(lambda: has_text(stack, live.id, 10), what="some text")
    branch = await fork(stack, live.id, after=FIRST_TEXT + 9, max_output_tokens=15, background=False)
    assert branch.output_text == text_of(15)
    done = await ask(stack, temperature=0.3, user="me")
    for source in ("redis", "archive"):
        if source == "archive":
            await until(lambda: is_archived(stack, done.id), what="the log to expire")
        for after, kept in ((0, 0), (2, 0), (FIRST_TEXT, 1), (FIRST_TEXT + 18, 19)):
            made = await fork(stack, done.id, after=after, temperature=1.5)
            assert made.output_text == text_of(20)
            assert made.id != done.id
            assert made.output[0].id == f"msg_{made.id[5:]}_0"
            assert (made.temperature, made.user, made.model) == (1.5, "me", "synthetic")
            assert made.usage is not None
            assert (made.usage.input_tokens, made.usage.output_tokens) == (1 + kept, 20 - kept)
            shown = made.to_dict()
            assert (shown["fork_of"], shown["fork_after"]) == (done.id, after)
    assert "fork_of" not in done.to_dict()
    assert (await stack.client().responses.retrieve(live.id)).status in ("in_progress", "incomplete")


async def test_the_stream_of_a_fork_begins_with_the_same_events_and_survives_its_worker(
    stack: RunningStack, http: httpx.AsyncClient
) -> None:
    done = await ask(stack, 10)
    after = FIRST_TEXT + 8
    events: list[dict[str, Any]] = []
    body = {"after": after, "stream": True, "max_output_tokens": 60}
    async with http.stream("POST", f"{stack.url(1)}/v1/responses/{done.id}/fork", json=body) as answer:
        location = answer.headers["location"]
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                events.append(json.loads(line[6:]))
                if len(events) == after + 20:
                    stack.kill("inference-1")
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    old = [json.loads(e.partition("data: ")[2].partition("\n")[0]) for e in await stream_of(stack, http, done.id)]
    new_id = events[0]["response"]["id"]
    assert location == f"/v1/responses/{new_id}?stream=true"
    for ours, theirs in zip(events[3 : after + 1], old[3 : after + 1], strict=True):
        assert json.dumps(ours) == json.dumps(theirs).replace(done.id[5:], new_id[5:])
    assert "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta") == text_of(60)
    assert events[-1]["response"]["usage"]["output_tokens"] == 60 - 9
    again = await http.get(stack.url(2) + location, headers={"last-event-id": f"0-{after + 1}"})
    numbers = [
        json.loads(e.partition("data: ")[2].partition("\n")[0])["sequence_number"] for e in json_events(again.text)
    ]
    assert numbers == list(range(after + 1, len(events)))


async def stream_of(stack: RunningStack, http: httpx.AsyncClient, response_id: str) -> list[str]:
    return json_events((await http.get(f"{stack.url(2)}/v1/responses/{response_id}?stream=true")).text)


def json_events(text: str) -> list[str]:
    return [event for event in events_of(text) if "data: {" in event]


async def test_a_fork_may_be_of_any_api_and_what_can_not_be_one_is_refused_by_name(
    stack: RunningStack, http: httpx.AsyncClient
) -> None:
    client = stack.client()
    chat = await client.chat.completions.create(
        model="synthetic", messages=[{"role": "user", "content": "x"}], max_tokens=10, stop="t7"
    )
    made = await fork(stack, chat.id, after=FIRST_TEXT + 3, stop=["t9"])
    assert made.output_text == text_of(9) + " "
    bare = await client.completions.create(model="synthetic", prompt="x", max_tokens=10)
    assert (await fork(stack, bare.id, after=FIRST_TEXT)).output_text == text_of(10)
    vectors = await http.post(f"{stack.url()}/v1/embeddings", json={"model": "synthetic", "input": "x"})
    embedding = vectors.headers["location"].rpartition("/")[2]
    unstored = await ask(stack, 5, store=False)
    guided = await ask(stack, text={"format": {"type": "json_object"}})
    done = await ask(stack, 10)
    for response_id, body, code, param in (
        (embedding, {"after": 0}, "invalid_value", None),
        (unstored.id, {"after": 0, "store": True}, "invalid_value", "store"),
        (guided.id, {"after": FIRST_TEXT}, "capability_missing", "after"),
        (done.id, {"after": FIRST_TEXT + 10}, "invalid_cursor", "after"),
        (done.id, {"after": FIRST_TEXT + 9}, "invalid_value", "max_output_tokens"),
        (done.id, {"after": -1}, "invalid_value", "after"),
        (done.id, {"after": "3"}, "invalid_value", "after"),
        (done.id, {}, "invalid_value", "after"),
        (done.id, {"after": 3, "model": "other"}, "unsupported_parameter", "model"),
        (done.id, {"after": 3, "input": "x"}, "unsupported_parameter", "input"),
        (done.id, {"after": 3, "tools": []}, "unsupported_parameter", "tools"),
        (done.id, {"after": 3, "nonsense": 1}, "unsupported_parameter", "nonsense"),
    ):
        answer = await http.post(f"{stack.url(2)}/v1/responses/{response_id}/fork", json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, code, param), (body, error)
    assert (await fork(stack, unstored.id, after=FIRST_TEXT)).to_dict()["store"] is False
    with pytest.raises(openai.NotFoundError):
        await fork(stack, "resp_" + "0" * 32, after=0)
    large = await http.post(f"{stack.url()}/v1/responses/{done.id}/fork", content=b" " * 200_000)
    assert large.status_code == 413
