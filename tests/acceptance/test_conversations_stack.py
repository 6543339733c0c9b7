"""Conversations and chains of responses through the official client, over two gateways, real processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from tests.acceptance.stack import RunningStack, running
from tests.waiting import until

pytestmark = [pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

ASK: dict[str, Any] = {"model": "synthetic", "max_output_tokens": 3}
"""Three words come back, and `usage.input_tokens` counts the words of the whole prompt."""
GREETING: Any = {"type": "message", "role": "user", "content": "hello there"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningStack]:
    data_dir: Path = tmp_path_factory.mktemp("stack") / "data"
    settings = {"synthetic_tokens_per_second": "200"}
    async with running(data_dir, "--engine", "synthetic", gateways=2, **settings) as stack:
        yield stack


def words(response: Any) -> int:
    """Of the prompt."""
    assert response.usage is not None
    return int(response.usage.input_tokens)


async def text_of(client: openai.AsyncOpenAI, conversation: str) -> list[str]:
    found = await client.conversations.items.list(conversation, order="asc", limit=100)
    return [item.content[0].text async for item in found]  # type: ignore[union-attr]


async def test_a_conversation_is_made_read_changed_and_deleted(stack: RunningStack) -> None:
    client, other = stack.client(1), stack.client(2)
    made = await client.conversations.create(items=[GREETING], metadata={"title": "First"})
    assert made.object == "conversation"
    assert await other.conversations.retrieve(made.id) == made
    changed = await other.conversations.update(made.id, metadata={"title": "Second"})
    assert changed.metadata == {"title": "Second"}
    assert await text_of(other, made.id) == ["hello there"]
    assert (await client.conversations.delete(made.id)).deleted
    with pytest.raises(openai.NotFoundError) as caught:
        await other.conversations.retrieve(made.id)
    assert caught.value.code == "conversation_not_found"
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(**ASK, input="x", conversation=made.id)


async def test_items_are_added_read_paged_and_deleted(stack: RunningStack) -> None:
    client = stack.client()
    talk = (await client.conversations.create()).id
    new: Any = [{"role": "user", "content": [{"type": "input_text", "text": str(i)}]} for i in range(5)]
    added = await client.conversations.items.create(talk, items=new)
    assert [item.content[0].text for item in added.data] == ["0", "1", "2", "3", "4"]  # type: ignore[union-attr]
    first = await client.conversations.items.list(talk, limit=2)
    assert first.has_more
    assert [item.content[0].text async for item in first] == ["4", "3", "2", "1", "0"]  # type: ignore[union-attr]
    two = added.data[2]
    assert two.id is not None
    assert await client.conversations.items.retrieve(two.id, conversation_id=talk) == two
    assert (await client.conversations.items.delete(two.id, conversation_id=talk)).id == talk
    with pytest.raises(openai.NotFoundError) as caught:
        await client.conversations.items.retrieve(two.id, conversation_id=talk)
    assert caught.value.code == "item_not_found"
    assert await text_of(client, talk) == ["0", "1", "3", "4"]


async def test_every_turn_sees_all_before_it_at_once_at_any_gateway(stack: RunningStack) -> None:
    clients = [stack.client(1), stack.client(2)]
    talk = (await clients[0].conversations.create(items=[GREETING])).id
    for turn in range(4):
        answer = await clients[turn % 2].responses.create(**ASK, input="go on", conversation=talk)
        assert answer.conversation is not None
        assert answer.conversation.id == talk
        assert words(answer) == 2 + turn * 5 + 2
    assert await text_of(clients[1], talk) == ["hello there", *(["go on", " t0 t1 t2"] * 4)]
    own = await clients[0].responses.input_items.list(answer.id)
    assert [item.content[0].text for item in own.data] == ["go on"]  # type: ignore[union-attr]
    stored = await clients[0].conversations.items.list(talk, limit=2)
    assert stored.data[0].id == answer.output[0].id
    assert stored.data[1].id == own.data[0].id
    other = await clients[1].responses.create(**ASK, input="go on", previous_response_id=answer.id)
    assert words(other) == 24
    assert len(await text_of(clients[1], talk)) == 9, "only `conversation` adds a turn"


async def test_a_chain_of_responses_goes_on_from_each_of_them(stack: RunningStack) -> None:
    client = stack.client()
    first = await client.responses.create(**ASK, input="one", instructions="be very brief")
    second = await client.responses.create(**ASK, input="two", previous_response_id=first.id)
    stream = await client.responses.create(**ASK, input="three", previous_response_id=second.id, stream=True)
    ends = [event async for event in stream if event.type == "response.incomplete"]
    assert words(ends[0].response) == 3 * 1 + 2 * 3
    assert ends[0].response.previous_response_id == second.id
    branch = await client.responses.create(**ASK, input="or two", previous_response_id=first.id)
    assert words(branch) == 1 + 3 + 2
    await client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError) as caught:
        await client.responses.create(**ASK, input="x", previous_response_id=second.id)
    assert caught.value.param == "previous_response_id"


async def test_a_call_of_a_tool_and_its_result_are_turns_of_a_conversation(stack: RunningStack) -> None:
    client = stack.client()
    talk = (await client.conversations.create()).id
    tool: Any = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
    first = await client.responses.create(
        model="synthetic", input="weather?", conversation=talk, tools=[tool], tool_choice="required"
    )
    (call,) = [item for item in first.output if item.type == "function_call"]
    given: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "it rains"}]
    second = await stack.client(2).responses.create(**ASK, input=given, conversation=talk, tools=[tool])
    assert second.status == "incomplete"
    found = await client.conversations.items.list(talk, order="asc")
    assert [item.type for item in found.data] == ["message", "function_call", "function_call_output", "message"]


async def test_only_one_turn_at_a_time_and_the_next_when_it_has_ended(stack: RunningStack) -> None:
    client = stack.client()
    talk = (await client.conversations.create()).id
    running = await client.responses.create(
        model="synthetic", input="long", max_output_tokens=2000, conversation=talk, background=True
    )
    with pytest.raises(openai.ConflictError) as caught:
        await client.responses.create(**ASK, input="x", conversation=talk)
    assert caught.value.code == "conversation_locked"
    with pytest.raises(openai.ConflictError):
        await client.conversations.items.create(talk, items=[GREETING])
    await client.responses.cancel(running.id)
    answers = await asyncio.gather(
        *(stack.client(1 + i % 2).responses.create(**ASK, input="me", conversation=talk) for i in range(8)),
        return_exceptions=True,
    )
    served = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert served
    assert all(isinstance(answer, openai.ConflictError) for answer in answers if answer not in served)
    assert await text_of(client, talk) == ["me", " t0 t1 t2"] * len(served)


async def test_a_tenants_conversations_are_listed_paged_and_searched(stack: RunningStack) -> None:
    client = stack.client()
    made = [
        (await client.conversations.create(metadata={"title": f"Trip to {c}"})).id for c in ("Oslo", "Rome", "Bern")
    ]
    async with httpx.AsyncClient(base_url=f"{stack.url()}/v1", timeout=30) as http:

        async def ids(**parameters: Any) -> list[str]:
            answer = await http.get("/conversations", params=parameters)
            assert answer.status_code == 200, answer.text
            return [one["id"] for one in answer.json()["data"]]

        assert await ids(title="trip TO") == made[::-1]
        assert await ids(title="rome") == [made[1]]
        assert await ids(limit=1, after=made[2]) == [made[1]]
        assert await ids(limit=1, order="asc", after=made[0]) == [made[1]]
        assert await ids(until=1) == []
        assert len(await ids(since=1)) >= 3
        for wrong in ({"limit": "0"}, {"limit": "x"}, {"order": "up"}, {"since": "-1"}):
            assert (await http.get("/conversations", params=wrong)).status_code == 400
        assert (await http.get("/conversations", params={"after": "x"})).status_code == 404


async def test_what_can_not_be_is_said(stack: RunningStack) -> None:
    client = stack.client()
    talk = (await client.conversations.create()).id
    first = await client.responses.create(**ASK, input="one")
    with pytest.raises(openai.BadRequestError, match="not both"):
        await client.responses.create(**ASK, input="x", conversation=talk, previous_response_id=first.id)
    for wrong in ({"conversation": "x"}, {"previous_response_id": "x"}, {"conversation": {"id": "conv_" + "0" * 32}}):
        with pytest.raises(openai.NotFoundError) as caught:
            await client.responses.create(**ASK, input="x", **wrong)  # type: ignore[arg-type]
        assert caught.value.param == next(iter(wrong))
    many: Any = [GREETING] * 21
    with pytest.raises(openai.BadRequestError):
        await client.conversations.items.create(talk, items=many)


async def test_the_archive_has_each_item_once_and_each_log_only_what_is_new(stack: RunningStack) -> None:
    client = stack.client()
    talk = (await client.conversations.create()).id
    for _ in range(3):
        answer = await client.responses.create(**ASK, input="needle", conversation=talk)
    await client.responses.create(**ASK, input="x", conversation=talk)
    async with httpx.AsyncClient(timeout=30) as http:
        replay = (await http.get(f"{stack.url(2)}/v1/responses/{answer.id}?stream=true")).text
    assert "needle" not in replay

    async def is_settled() -> bool:
        try:
            await client.conversations.items.create(talk, items=[GREETING])
        except openai.ConflictError:
            return False
        return True

    await until(is_settled, what="the archiver")
    assert await text_of(client, talk) == [*(["needle", " t0 t1 t2"] * 3), "x", " t0 t1 t2", "hello there"]
