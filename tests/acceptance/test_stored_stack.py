"""Stored chat completions, service tiers, what answers and log lines name, and images by URL: the official client
in front of real processes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletion

from tests.acceptance.stack import RunningStack, running
from tests.acceptance.test_kept_stack import exported
from tests.integration.test_outbound import PNG, Server, redirects, serving
from tests.integration.test_outbound import says as answers
from tests.upstream import Upstream, says, upstream
from tests.waiting import until

pytestmark = [pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

MODELS = """
[[models]]
name = "synthetic"
engine = "synthetic"

[[models]]
name = "seeing"
aliases = ["eyes"]
adapters = {{ "squint" = "squint-v2" }}
engine = "openai"
upstreams = [{{ url = "{url}" }}]
"""
HI: list[Any] = [{"role": "user", "content": "hi"}]


class World:
    """The stack, the API behind its model that sees, and a server with images."""

    def __init__(self, stack: RunningStack, behind: Upstream, images: Server) -> None:
        self.stack = stack
        self.behind = behind
        self.images = images

    @property
    def client(self) -> openai.AsyncOpenAI:
        return self.stack.client()

    async def ask(self, **more: Any) -> ChatCompletion:
        asked: Any = {"model": "synthetic", "messages": HI, "max_tokens": 2} | more
        made: ChatCompletion = await self.client.chat.completions.create(**asked)
        return made

    async def listed(self, **query: Any) -> list[ChatCompletion]:
        """All pages."""
        return [one async for one in self.stack.client(2).chat.completions.list(**query)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder: Path = tmp_path_factory.mktemp("stack")
    models = folder / "models.toml"
    async with upstream() as behind, serving() as images:
        models.write_text(MODELS.format(url=behind.url))
        settings = {
            "models_file": str(models),
            "synthetic_tokens_per_second": "500",
            "image_urls": "fetch",
            "image_max_bytes": "1000",
            "outbound_allow": "127.0.0.1/32",
            "outbound_ports": f"80, {images.port}",
        }
        async with running(folder / "data", gateways=2, **settings) as stack:
            yield World(stack, behind, images)


async def test_stored_chat_completions_are_listed_page_by_page_and_found_by_model_and_metadata(world: World) -> None:
    made = [await world.ask(metadata={"run": "paging", "i": str(i % 2)}) for i in range(5)]
    world.behind.scripts = [says("a", " cat")]
    seen = await world.ask(model="seeing", metadata={"run": "paging", "i": "0"})
    unstored = await world.ask(metadata={"run": "paging"}, store=False)
    await world.client.responses.create(model="synthetic", input="hi", metadata={"run": "paging"}, max_output_tokens=1)

    async def all_of_them() -> list[ChatCompletion]:
        found = await world.listed(metadata={"run": "paging"})
        return found if len(found) == 6 else []

    found = await until(all_of_them, what="the archiver")
    ids = [one.id for one in (*made, seen)]
    assert [one.id for one in found] == ids
    assert found[0].choices == made[0].choices
    assert found[0].usage == made[0].usage
    assert found[0].metadata == {"run": "paging", "i": "0"}
    assert unstored.id not in {one.id for one in await world.listed()}
    assert [one.id for one in await world.listed(metadata={"run": "paging"}, limit=2, order="desc")] == ids[::-1]
    assert [one.id for one in await world.listed(metadata={"run": "paging"}, after=ids[2], limit=1)] == ids[3:]
    assert [one.id for one in await world.listed(metadata={"run": "paging", "i": "1"})] == [ids[1], ids[3]]
    assert [one.id for one in await world.listed(metadata={"run": "paging"}, model="seeing")] == [seen.id]
    assert [one.id for one in await world.listed(metadata={"run": "paging"}, model="eyes")] == [seen.id]
    assert await world.listed(model="nobody") == []
    with pytest.raises(openai.BadRequestError, match="listed with those of 'seeing'"):
        await world.listed(model="squint")
    async with httpx.AsyncClient(base_url=world.stack.url()) as plain:
        page = (await plain.get("/v1/chat/completions", params={"limit": 2, "metadata[run]": "paging"})).json()
        assert page["object"] == "list"
        assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[0], ids[1], True)
        for query, param in (("metdata[run]=x", "metdata[run]"), ("limit=0", "limit"), ("order=up", "order")):
            refused = await plain.get(f"/v1/chat/completions?{query}")
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
        assert (await plain.get("/v1/chat/completions?after=nobody")).status_code == 404


async def test_a_stored_one_shows_what_was_asked_and_its_messages(world: World) -> None:
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    call: Any = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    image = "data:image/png;base64,AAAA"
    messages: list[Any] = [
        {"role": "system", "content": "be brief"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": image}}],
        },
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    world.behind.scripts = [says("a", " cat")]
    made = await world.ask(model="seeing", messages=messages, tools=[tool], seed=7, temperature=0.5, user="u")
    client = world.stack.client(2).chat.completions
    shown = (await client.retrieve(made.id)).to_dict()
    assert shown["choices"] == made.to_dict()["choices"]
    asked = {"seed": 7, "temperature": 0.5, "top_p": None, "input_user": "u", "metadata": {}, "response_format": None}
    assert {name: shown[name] for name in asked} == asked
    assert shown["tools"][0]["function"]["name"] == "f"  # type: ignore[index]
    assert str(shown["request_id"]).startswith("req_")
    found = [one async for one in client.messages.list(made.id, limit=3)]
    assert [(one.id, one.role, one.content) for one in found] == [
        (f"{made.id}-0", "system", "be brief"),
        (f"{made.id}-1", "user", "see"),
        (f"{made.id}-2", "assistant", None),
        (f"{made.id}-3", "tool", "42"),
    ]
    assert [part.type for part in found[1].content_parts or []] == ["text", "image_url"]
    assert (found[2].tool_calls or [])[0].id == "c1"
    assert [one.id async for one in client.messages.list(made.id, after=f"{made.id}-1", order="desc")] == [
        f"{made.id}-0"
    ]
    with pytest.raises(openai.NotFoundError):
        await client.messages.list(made.id, after="nobody")


async def test_metadata_is_changed_for_everybody_at_once_and_deleted_with_the_rest(world: World) -> None:
    made = await world.ask(metadata={"state": "new", "by": "me"})
    response_id = made.id.replace("chatcmpl-", "resp_")
    stream = await world.client.responses.retrieve(response_id, stream=True)
    before = [event.to_json() async for event in stream]
    updated = await world.client.chat.completions.update(made.id, metadata={"state": "read"})
    assert updated.metadata == {"state": "read"}
    for gateway in (1, 2):
        client = world.stack.client(gateway)
        assert (await client.chat.completions.retrieve(made.id)).metadata == {"state": "read"}
        assert (await client.responses.retrieve(response_id)).metadata == {"state": "read"}
        again = await client.responses.retrieve(response_id, stream=True)
        assert [event.to_json() async for event in again] == before, "the stream stays as it was"
    assert [one.id for one in await world.listed(metadata={"state": "read"})] == [made.id]
    assert await world.listed(metadata={"state": "new"}) == []
    row = (await exported(world.stack.data_dir))[response_id]
    assert row["metadata"] == row["response"]["metadata"] == {"state": "read"}
    assert row["request"]["metadata"] == {"state": "new", "by": "me"}
    cleared = await world.client.chat.completions.update(made.id, metadata=None)
    assert cleared.metadata == {}
    assert (await world.client.chat.completions.delete(made.id)).deleted
    assert await world.listed(metadata={"state": "read"}) == []
    for call in (
        world.client.chat.completions.retrieve(made.id),
        world.client.chat.completions.update(made.id, metadata={}),
    ):
        with pytest.raises(openai.NotFoundError):
            await call


async def test_metadata_of_what_has_not_ended_or_is_not_stored_is_not_changed(world: World) -> None:
    running_one = await world.client.responses.create(
        model="synthetic", input="hi", background=True, max_output_tokens=5000
    )
    with pytest.raises(openai.ConflictError) as caught:
        await world.client.chat.completions.update(running_one.id, metadata={"a": "b"})
    assert (caught.value.code, caught.value.response.headers["retry-after"]) == ("response_locked", "1")
    await world.client.responses.cancel(running_one.id)
    with pytest.raises(openai.APIStatusError, match="cancelled"):
        await world.client.chat.completions.update(running_one.id, metadata={"a": "b"})
    unstored = await world.ask(store=False)
    with pytest.raises(openai.NotFoundError, match="was not stored"):
        await world.client.chat.completions.update(unstored.id, metadata={"a": "b"})
    async with httpx.AsyncClient(base_url=world.stack.url()) as plain:
        for body in ({}, {"metadata": {"a": 1}}, {"metadata": {}, "model": "m"}):
            answer = await plain.post(f"/v1/chat/completions/{unstored.id}", json=body)
            assert answer.status_code == 400, answer.text


@pytest.mark.parametrize(
    ("asked", "used", "lane"),
    [("auto", "default", "interactive"), ("priority", "priority", "interactive"), ("flex", "flex", "batch")],
)
async def test_a_service_tier_decides_the_lane_and_the_answer_names_it(
    world: World, asked: Any, used: str, lane: str
) -> None:
    made = await world.ask(service_tier=asked)
    assert made.service_tier == used
    chunks: Any = await world.client.chat.completions.create(
        model="synthetic", messages=HI, max_tokens=2, service_tier=asked, stream=True
    )
    assert {chunk.service_tier async for chunk in chunks} == {used}
    response = await world.client.responses.create(
        model="synthetic", input="hi", max_output_tokens=2, service_tier=asked, background=True
    )
    assert response.service_tier == used
    accepted = (
        f"accepted id={made.id.replace('chatcmpl-', 'resp_')} tenant=default model=synthetic format=chat lane={lane}"
    )
    await until(lambda: accepted in world.stack.text, what=accepted)


async def test_answers_name_the_response_its_model_engine_and_attempts(world: World) -> None:
    body = {"model": "synthetic", "messages": HI, "max_tokens": 2}
    headers = {"x-request-id": "mine-1"}
    async with httpx.AsyncClient(base_url=world.stack.url(2), headers=headers, timeout=30) as plain:
        whole = await plain.post("/v1/chat/completions", json=body)
        stream = await plain.post("/v1/chat/completions", json=body | {"stream": True})
        again = await plain.get(whole.headers["location"].partition("?")[0])
        replayed = await plain.get(whole.headers["location"])
    begun = ["0", "1"]  # a stream begins with its request, and a worker may be as fast as its first byte
    for answer, attempts in ((whole, ["1"]), (stream, begun), (again, ["1"]), (replayed, ["1"])):
        assert answer.headers["x-openchat-model"] == "synthetic"
        assert answer.headers["x-openchat-engine"] == "synthetic"
        assert answer.headers["x-openchat-attempts"] in attempts
        assert answer.headers["x-request-id"] == "mine-1"
        assert answer.headers["openai-processing-ms"].isdigit()
    response_id = whole.headers["x-openchat-response-id"]
    assert response_id == again.headers["x-openchat-response-id"] == whole.json()["id"].replace("chatcmpl-", "resp_")
    assert again.json()["request_id"] == "mine-1"
    (line,) = await until(lambda: lines_with(world, f"accepted id={response_id} "))
    assert line.endswith(" request_id=mine-1")


async def test_a_failure_names_the_response_too_and_the_workers_line_the_request(world: World) -> None:
    world.behind.scripts = [says_no]
    body = {"model": "seeing", "messages": HI}
    async with httpx.AsyncClient(base_url=world.stack.url(), timeout=30) as plain:
        answer = await plain.post("/v1/chat/completions", json=body, headers={"x-request-id": "mine-2"})
    assert answer.status_code == 400, answer.text
    assert (answer.headers["x-openchat-model"], answer.headers["x-openchat-engine"]) == ("seeing", "openai")
    response_id = answer.headers["x-openchat-response-id"]
    lines = await until(lambda: lines_with(world, f"generation_failed id={response_id}"))
    assert all(line.endswith(" request_id=mine-2") for line in lines)


def lines_with(world: World, words: str) -> list[str]:
    return [line for line in world.stack.output if words in line]


async def says_no(call: Any) -> None:
    await call.answer(400, {"error": {"message": "no"}})


def picture(url: str) -> list[Any]:
    image = {"type": "image_url", "image_url": {"url": url}}
    return [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, image]}]


async def test_an_image_by_url_goes_to_the_model_as_if_it_had_been_sent(world: World) -> None:
    world.behind.scripts = [says("a", " cat")]
    url = f"http://127.0.0.1:{world.images.port}/cat.png"
    made = await world.ask(model="seeing", messages=picture(url))
    assert made.choices[0].message.content == "a cat"
    sent = world.behind.calls[-1].body["messages"][0]["content"][1]["image_url"]["url"]
    assert sent.startswith("data:image/png;base64,iVBOR")
    (message,) = (await world.client.chat.completions.messages.list(made.id)).data
    assert json.dumps(message.to_dict()).count(sent) == 1
    item = {"role": "user", "content": [{"type": "input_image", "image_url": url}]}
    conversation = await world.client.conversations.create(items=[item])  # type: ignore[list-item]
    items = await world.client.conversations.items.list(conversation.id)
    assert items.data[0].to_dict()["content"][0]["image_url"] == sent  # type: ignore[index]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (redirects("http://10.0.0.1/"), "no public address"),
        (
            answers(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 1001\r\n\r\n"),
            "larger than 1000 bytes",
        ),
        (
            answers(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 100\r\n\r\n" + PNG),
            "its type must be",
        ),
    ],
    ids=["redirect", "size", "type"],
)
async def test_an_image_that_can_not_be_had_is_the_callers_to_know(world: World, answer: Any, words: str) -> None:
    before, world.images.answer = world.images.answer, answer
    calls = len(world.behind.calls)
    try:
        with pytest.raises(openai.BadRequestError, match=words) as caught:
            await world.ask(model="seeing", messages=picture(f"http://127.0.0.1:{world.images.port}/cat.png"))
    finally:
        world.images.answer = before
    assert (caught.value.code, caught.value.param) == ("invalid_image_url", "messages[0].content[1].image_url")
    assert len(world.behind.calls) == calls


async def test_nothing_is_fetched_for_a_model_that_does_not_see(world: World) -> None:
    asked = len(world.images.heads)
    with pytest.raises(openai.BadRequestError, match="can not read images"):
        await world.ask(messages=picture(f"http://127.0.0.1:{world.images.port}/cat.png"))
    assert len(world.images.heads) == asked
