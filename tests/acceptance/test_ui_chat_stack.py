"""Chats of the AI SDK and plain text over two gateways: cut, resumed, stopped, and what they are served by killed.

The SDK itself reads the same streams in `make conformance`.
"""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import pytest_asyncio

from tests.acceptance.stack import RunningStack, running
from tests.acceptance.test_drain import is_busy
from tests.waiting import until

pytestmark = [pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

Chunk = dict[str, Any]
Piece = TypeVar("Piece", str, bytes)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningStack]:
    data_dir: Path = tmp_path_factory.mktemp("stack") / "data"
    settings = {"synthetic_tokens_per_second": "100", "lease_ms": "1000"}
    async with running(data_dir, "--engine", "synthetic", "--workers", "2", gateways=2, **settings) as stack:
        yield stack


@asynccontextmanager
async def clients(stack: RunningStack) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Of the two gateways."""
    async with (
        httpx.AsyncClient(base_url=stack.url(1), timeout=60) as first,
        httpx.AsyncClient(base_url=stack.url(2), timeout=60) as second,
    ):
        yield first, second


def turn(chat: str, tokens: int, **more: Any) -> dict[str, Any]:
    """As the SDK sends it. Without a model: there is only one."""
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "hi"}]}
    return {"id": chat, "messages": [message], "trigger": "submit-message", "max_output_tokens": tokens, **more}


async def until_broken_off(pieces: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    """What comes before the connection is broken off; a stream that ends well is a failure."""
    try:
        async for piece in pieces:
            yield piece
    except httpx.TransportError:
        return
    raise AssertionError("the stream ended well")


def words(tokens: int) -> str:
    return "".join(f" t{i}" for i in range(tokens))


def events_in(raw: str) -> list[str]:
    return [event for event in raw.split("\n\n") if event.startswith("data: ")]


def chunks_in(raw: str) -> list[Chunk]:
    return [json.loads(event[6:].split("\n")[0]) for event in events_in(raw) if "[DONE]" not in event]


def said(chunks: list[Chunk]) -> str:
    return "".join(chunk["delta"] for chunk in chunks if chunk["type"] == "text-delta")


async def begin(client: httpx.AsyncClient, chat: str, tokens: int, **more: Any) -> str:
    """A turn whose client leaves after its first words; the id of the response."""
    async with client.stream("POST", "/api/chat", json=turn(chat, tokens, **more)) as answer:
        assert answer.headers["x-vercel-ai-ui-message-stream"] == "v1"
        async for line in answer.aiter_lines():
            if "text-delta" in line:
                break
    return str(answer.headers["location"].split("/")[-2])


async def has_ended(client: httpx.AsyncClient, response_id: str) -> str:
    async def look() -> str | None:
        status = (await client.get(f"/v1/responses/{response_id}")).json()["status"]
        return status if status not in ("queued", "in_progress") else None

    return str(await until(look, what="the end of the response"))


async def test_a_chat_that_was_cut_off_is_replayed_whole_while_it_runs(stack: RunningStack) -> None:
    async with clients(stack) as (first, second):
        response_id = await begin(first, "a/chat %&", 120)
        url = "/api/chat/a%2Fchat%20%25%26/stream"
        replay = await second.get(url)
        assert replay.headers["content-type"].startswith("text/event-stream")
        chunks = chunks_in(replay.text)
        assert chunks[0] == {"type": "start", "messageId": response_id}
        assert said(chunks) == words(120)
        assert events_in(replay.text)[-1] == "data: [DONE]"
        assert (await second.get(url)).status_code == 204
        assert (await second.get("/api/chat/never/stream")).status_code == 204
        for where in (url, f"/v1/responses/{response_id}/ui", f"/v1/responses/chatcmpl-{response_id[5:]}/ui"):
            events = events_in(replay.text)
            after = events[40].split("\nid: ")[1]
            rest = await first.get(where, headers={"last-event-id": after})
            assert events_in(rest.text) == events[41:]
            last = await first.get(where, headers={"last-event-id": events[-2].split("\nid: ")[1]})
            assert last.status_code == 204
            assert (await first.get(f"{where}?starting_after=9999")).json()["error"]["code"] == "invalid_cursor"
        assert (await first.get(f"/v1/responses/{response_id}/ui")).text == replay.text
        await first.delete(f"/v1/responses/{response_id}")
        assert (await second.get(url)).status_code == 204


async def test_only_the_response_that_is_meant_is_stopped(stack: RunningStack) -> None:
    async with clients(stack) as (first, second):
        old = await begin(first, "c", 3)
        await has_ended(second, old)
        async with first.stream("POST", "/api/chat", json=turn("c", 4000)) as answer:
            stale = await second.post("/api/chat/c/stop", json={"activeStreamId": old, "assistantMessage": {}})
            assert stale.status_code == 204
            response_id = answer.headers["location"].split("/")[-2]
            lines: list[str] = []
            async for line in answer.aiter_lines():
                lines.append(line)
                if len(lines) == 40:  # it went on
                    stopped = await second.post("/api/chat/c/stop", json={"activeStreamId": response_id})
                    assert stopped.json() == {"stopped": response_id}
        chunks = chunks_in("\n".join(lines))
        assert [chunk["type"] for chunk in chunks[-2:]] == ["text-end", "abort"]
        assert await has_ended(first, response_id) == "cancelled"
        for body in (b"", b"{}", json.dumps({"activeStreamId": response_id}).encode()):
            assert (await first.post("/api/chat/c/stop", content=body)).status_code == 204
        assert (await first.post("/api/chat/c/stop", content=b"[]")).status_code == 400


async def test_a_message_that_is_added_to_keeps_its_id_and_is_replayed_with_what_it_had(stack: RunningStack) -> None:
    part = {"type": "tool-f", "toolCallId": "call_1", "state": "output-available", "input": {}, "output": "sun"}
    asked = turn("t", 120)["messages"][0]
    answered = {"id": "m-1", "role": "assistant", "parts": [{"type": "step-start"}, part]}
    async with clients(stack) as (first, second):
        response_id = await begin(first, "t", 120, messages=[asked, answered])
        chunks = chunks_in((await second.get("/api/chat/t/stream")).text)
        assert chunks[0] == {"type": "start", "messageId": "m-1"}
        assert [chunk["type"] for chunk in chunks].count("start-step") == 2
        assert {"type": "tool-output-available", "toolCallId": "call_1", "output": "sun"} in chunks
        assert said(chunks) == words(120)
        items = (await first.get(f"/v1/responses/{response_id}/input_items?order=asc")).json()["data"]
        assert [item["type"] for item in items] == ["message", "function_call", "function_call_output"]


async def test_what_can_not_be_asked_is_refused_before_the_stream(stack: RunningStack) -> None:
    async with clients(stack) as (first, _):
        for change, param in (
            ({"id": ""}, "id"),
            ({"id": "x" * 257}, "id"),
            ({"messages": []}, "messages"),
            ({"message": {}}, "message"),
            ({"trigger": "resume-stream"}, "trigger"),
            ({"model": "other"}, "model"),
        ):
            answer = await first.post("/api/chat", json=turn("c", 3) | change)
            assert answer.status_code in (400, 404), answer.text
            assert answer.json()["error"]["param"] == param
        assert (await first.get("/api/chat/" + "x" * 257 + "/stream")).status_code == 400


SCHEMA = {"type": "object", "properties": {"a": {"const": "naïve → 𝄞 日本"}}, "required": ["a"]}


async def test_text_goes_on_at_every_byte(stack: RunningStack) -> None:
    body = {
        "model": "synthetic",
        "messages": [{"role": "user", "content": "x"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
    }
    async with clients(stack) as (first, second):
        whole = (await first.post("/v1/chat/completions", json=body)).json()
        text = whole["choices"][0]["message"]["content"].encode()
        assert len(text) > len(text.decode())
        url = f"/v1/responses/{whole['id']}/text"
        for offset in range(len(text) + 1):
            rest = await second.get(url, params={"offset": offset})
            assert rest.headers["content-type"] == "text/plain; charset=utf-8"
            assert rest.content == text[offset:], offset
        for wrong in (len(text) + 1, -1, "", "1.0", "٣"):
            error = (await second.get(url, params={"offset": wrong})).json()["error"]
            assert (error["code"], error["param"]) == ("invalid_cursor", "offset"), wrong
        assert (await second.get(url, params={"starting_after": 1})).status_code == 400


async def test_text_comes_as_it_is_said_and_shows_when_more_should_have_come(stack: RunningStack) -> None:
    def ask(**faults: str) -> dict[str, Any]:
        metadata = {f"synthetic-{name.replace('_', '-')}": value for name, value in faults.items()}
        return {"model": "synthetic", "input": "x", "max_output_tokens": 60, "background": True, "metadata": metadata}

    async with clients(stack) as (first, second):
        good = (await first.post("/v1/responses", json=ask(reasoning="5"))).json()["id"]
        pieces: list[bytes] = []
        async with second.stream("GET", f"/v1/responses/{good}/text") as answer:
            async for piece in answer.aiter_raw():
                pieces.append(piece)
                if len(pieces) == 5:
                    break
        had = b"".join(pieces)
        rest = await first.get(f"/v1/responses/{good}/text", params={"offset": len(had)})
        assert (had + rest.content).decode() == words(55), "no reasoning, and nothing twice"
        bad = (await first.post("/v1/responses", json=ask(fail_after="20"))).json()["id"]
        had = b""
        async with second.stream("GET", f"/v1/responses/{bad}/text") as answer:
            async for piece in until_broken_off(answer.aiter_raw()):
                had += piece
        assert had.decode() == words(20)
        silent = (await first.post("/v1/responses", json=ask(fail_after="1", reasoning="9"))).json()["id"]
        for where in (f"{bad}/text?offset={len(had)}", f"{silent}/text"):
            answer = await second.get(f"/v1/responses/{where}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (500, "engine_error")
        vectors = (await first.post("/v1/embeddings", json={"model": "synthetic", "input": "x"})).headers["location"]
        for form in ("text", "ui"):
            answer = await first.get(f"/v1/responses/{vectors.rpartition('/')[2]}/{form}")
            assert answer.status_code == 404, answer.text


async def test_who_reads_the_text_is_a_viewer_and_a_chat_needs_none(stack: RunningStack) -> None:
    ask = {"model": "synthetic", "input": "x", "max_output_tokens": 4000, "stream": True}
    async with clients(stack) as (first, second):
        async with first.stream("POST", "/v1/responses", json=ask) as made:
            response_id = made.headers["location"].split("/")[-1].split("?")[0]
            reading = second.stream("GET", f"/v1/responses/{response_id}/text")
            text = await reading.__aenter__()
        size, pieces = 0, text.aiter_raw()
        while size < 1500:  # long after the other has left
            size += len(await anext(pieces))
        await text.aclose()
        assert await has_ended(first, response_id) == "cancelled"
        assert await has_ended(first, await begin(first, "alone", 60)) == "incomplete"
        headers = {"x-openchat-on-disconnect": "cancel"}
        async with first.stream("POST", "/api/chat", json=turn("short", 4000), headers=headers) as answer:
            pass
        assert await has_ended(second, answer.headers["location"].split("/")[-2]) == "cancelled"


async def test_a_chat_is_resumed_though_its_worker_and_its_gateway_were_killed(stack: RunningStack) -> None:
    async with clients(stack) as (first, second):
        async with first.stream("POST", "/api/chat", json=turn("killed", 300)) as answer:
            async for line in until_broken_off(answer.aiter_lines()):
                if '" t40"' in line:
                    busy = [name for name in ("inference-1", "inference-2") if await is_busy(stack, name)]
                    stack.kill(busy[0])
                    stack.kill("ingress-1")
        chunks = chunks_in((await second.get("/api/chat/killed/stream")).text)
        assert chunks[0]["type"] == "start"
        assert said(chunks) == words(300)
        assert chunks[-1] == {"type": "finish", "finishReason": "length"}


async def test_a_gateway_that_drains_breaks_off_what_would_else_look_whole(stack: RunningStack) -> None:
    async with clients(stack) as (first, second):
        await until(lambda: answers(first), what="the gateway that was killed")
        response_id = await begin(second, "drained", 300)
        had = b""
        async with (
            first.stream("GET", f"/v1/responses/{response_id}/ui") as shown,
            first.stream("GET", f"/v1/responses/{response_id}/text") as text,
        ):
            async for piece in until_broken_off(text.aiter_raw()):
                if not had:
                    stack.kill("ingress-1", signal.SIGTERM)
                had += piece
            lines = [line async for line in until_broken_off(shown.aiter_lines())]
        assert "data: [DONE]" not in lines
        assert "ASGI callable" not in stack.text, "the server takes it for no error"
        rest = await second.get(f"/v1/responses/{response_id}/text", params={"offset": len(had)})
        assert (had + rest.content).decode() == words(300)


async def answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.HTTPError:
        return False
