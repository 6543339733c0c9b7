"""The official Python client, sync and async, with its helpers, over an engine that does what it is asked.

What single features promise in every corner is tested beside them; here it is what a program with this client sees.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pydantic
import pytest
import pytest_asyncio

from tests.conformance.stack import REASONER, SCRIPTED, Target, serving
from tests.waiting import until

pytestmark = [pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

COUNT = "Count from 1 to 5."
COUNTED = "1, 2, 3, 4, 5"
LONG = "Count slowly from 1 to 900."
PERSON = "A person called 'Ann', 33."
CITIES = "What is the weather in 'Oslo' and in 'Rome'?"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION: Any = {"name": "get_weather", "description": "The weather in a city", "parameters": PARAMETERS}
TOOL: Any = {"type": "function", **FUNCTION}
CHAT_TOOL: Any = {"type": "function", "function": FUNCTION}
ZEROS = "0" * 32
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Person(pydantic.BaseModel):
    name: str
    age: int


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def target(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    async with serving(tmp_path_factory.mktemp("stack"), has_real=False, max_body_bytes="200000") as target:
        yield target


@pytest.fixture
def client(target: Target) -> openai.AsyncOpenAI:
    return target.stack.client(key=target.key)


@pytest.fixture
def other(target: Target) -> openai.AsyncOpenAI:
    """Of another tenant."""
    return target.stack.client(key=target.other_key)


def said(content: str | list[Any] = COUNT) -> list[Any]:
    return [{"role": "user", "content": content}]


def chat(content: str | list[Any] = COUNT, **more: Any) -> dict[str, Any]:
    return {"model": SCRIPTED, "messages": said(content), **more}


def asked(text: str = COUNT, **more: Any) -> dict[str, Any]:
    return {"model": SCRIPTED, "input": text, **more}


async def dumped(stream: Any) -> list[dict[str, Any]]:
    return [event.model_dump() async for event in stream]


# Responses


async def test_a_response_is_made_read_listed_and_deleted(client: openai.AsyncOpenAI) -> None:
    made = await client.responses.create(**asked(instructions="Be short.", metadata={"a": "b"}))
    assert (made.status, made.output_text, made.metadata) == ("completed", COUNTED, {"a": "b"})
    assert made.usage is not None
    assert (made.usage.input_tokens, made.usage.output_tokens, made.usage.total_tokens) == (7, 9, 16)
    assert await client.responses.retrieve(made.id) == made
    items = await client.responses.input_items.list(made.id)
    assert [item.content[0].text for item in items.data] == [COUNT]  # type: ignore[union-attr]
    await client.responses.delete(made.id)
    for gone in (client.responses.retrieve(made.id), client.responses.input_items.list(made.id)):
        with pytest.raises(openai.NotFoundError):
            await gone


async def test_resumed_after_every_event_a_stream_has_exactly_the_rest(client: openai.AsyncOpenAI) -> None:
    whole = await dumped(await client.responses.create(**asked(), stream=True))
    assert [event["sequence_number"] for event in whole] == list(range(len(whole)))
    assert [whole[0]["type"], whole[-1]["type"]] == ["response.created", "response.completed"]
    response_id = whole[0]["response"]["id"]
    for after in range(len(whole)):
        rest = await client.responses.retrieve(response_id, stream=True, starting_after=after)
        assert await dumped(rest) == whole[after + 1 :]
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.retrieve(response_id, stream=True, starting_after=len(whole))
    assert caught.value.code == "invalid_cursor"


async def test_the_stream_helper_follows_replays_and_parses(client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(model=REASONER, input=COUNT) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert [item.type for item in final.output] == ["reasoning", "message"]
    assert final.output_text == COUNTED
    assert kinds.count("response.output_text.delta") == 9
    async with client.responses.stream(response_id=final.id, starting_after=4) as stream:
        assert (await anext(aiter(stream))).sequence_number == 5
        assert (await stream.get_final_response()).output_text == COUNTED
    async with client.responses.stream(**asked(PERSON), text_format=Person) as parsing:
        parsed = await parsing.get_final_response()
    assert parsed.output_parsed == Person(name="Ann", age=33)


async def test_a_background_response_is_polled_to_its_end_or_cancelled(client: openai.AsyncOpenAI) -> None:
    first = await client.responses.create(**asked(background=True))
    assert first.status in ("queued", "in_progress")

    async def is_done() -> bool:
        return (await client.responses.retrieve(first.id)).status == "completed"

    await until(is_done)
    assert (await client.responses.retrieve(first.id)).output_text == COUNTED
    second = await client.responses.create(**asked(LONG, background=True))
    for _ in range(2):
        assert (await client.responses.cancel(second.id)).status == "cancelled"
    events = [event async for event in await client.responses.retrieve(second.id, stream=True)]
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.status == "cancelled"


async def test_left_in_the_middle_a_background_stream_goes_on_for_who_comes_back(client: openai.AsyncOpenAI) -> None:
    stream = await client.responses.create(**asked("Count slowly from 1 to 9.", background=True), stream=True)
    seen = [await anext(stream) for _ in range(8)]
    await stream.close()
    response_id = seen[0].response.id  # type: ignore[union-attr]
    rest = await client.responses.retrieve(response_id, stream=True, starting_after=seen[-1].sequence_number)
    events = [*seen, *[event async for event in rest]]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == "1, 2, 3, 4, 5, 6, 7, 8, 9"


async def test_tools_go_round_whole_chained_and_by_reference(
    client: openai.AsyncOpenAI, other: openai.AsyncOpenAI
) -> None:
    first = await client.responses.create(**asked(CITIES, tools=[TOOL]))
    calls = [item for item in first.output if item.type == "function_call"]
    assert [json.loads(call.arguments) for call in calls] == [{"city": "Oslo"}, {"city": "Rome"}]
    results: Any = [
        {"type": "function_call_output", "call_id": call.call_id, "output": f"sun {place}"}
        for place, call in enumerate(calls)
    ]
    sent: Any = [*said(CITIES), *(call.model_dump(exclude_none=True) for call in calls), *results]
    named: Any = [*said(CITIES), {"type": "item_reference", "id": calls[0].id}, {"id": calls[1].id}, *results]
    for given in ({"input": sent}, {"input": named}, {"input": results, "previous_response_id": first.id}):
        answer = await client.responses.create(model=SCRIPTED, tools=[TOOL], **given)
        assert answer.output_text == "The tools say: sun 0; sun 1", given
    for asker, missing in ((other, named), (client, [{"type": "item_reference", "id": "msg_nothing"}])):
        with pytest.raises(openai.NotFoundError) as caught:
            await asker.responses.create(model=SCRIPTED, input=missing)
        assert caught.value.code == "item_not_found"
    assert caught.value.param == "input[0].id"


async def test_one_call_at_a_time_or_none_where_so_it_is_asked(client: openai.AsyncOpenAI) -> None:
    one = await client.responses.create(**asked(CITIES, tools=[TOOL], parallel_tool_calls=False))
    none = await client.responses.create(**asked(CITIES, tools=[TOOL], tool_choice="none"))
    must = await client.responses.create(**asked("Hello", tools=[TOOL], tool_choice="required"))
    assert [item.type for item in one.output] == ["function_call"]
    assert [item.type for item in none.output] == ["message"]
    assert [item.type for item in must.output] == ["function_call"]


async def test_output_is_parsed_by_a_model_of_pydantic(client: openai.AsyncOpenAI) -> None:
    response = await client.responses.parse(**asked(PERSON), text_format=Person)
    completion = await client.chat.completions.parse(**chat(PERSON), response_format=Person)
    assert response.output_parsed == completion.choices[0].message.parsed == Person(name="Ann", age=33)
    loose = await client.chat.completions.create(**chat("JSON with 'a'"), response_format={"type": "json_object"})
    assert set(json.loads(loose.choices[0].message.content or "")) == {"a"}


async def test_conversations_and_their_items(client: openai.AsyncOpenAI) -> None:
    made = await client.conversations.create(items=said("Hello"), metadata={"topic": "x"})
    assert (await client.conversations.update(made.id, metadata={"topic": "y"})).metadata == {"topic": "y"}
    turn = await client.responses.create(**asked(conversation=made.id))
    assert turn.conversation is not None
    assert turn.conversation.id == made.id
    items = [item async for item in client.conversations.items.list(made.id, order="asc", limit=2)]
    assert [item.content[0].text for item in items] == ["Hello", COUNT, COUNTED]  # type: ignore[union-attr]
    one = await client.conversations.items.retrieve(items[0].id or "", conversation_id=made.id)
    assert one == items[0]
    assert (await client.conversations.items.delete(items[0].id or "", conversation_id=made.id)).id == made.id
    assert (await client.conversations.delete(made.id)).deleted
    with pytest.raises(openai.NotFoundError) as caught:
        await client.conversations.retrieve(made.id)
    assert caught.value.code == "conversation_not_found"


# Chat completions and the others


async def test_a_chat_is_answered_whole_and_streamed(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(**chat())
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (COUNTED, "stop")
    stream = await client.chat.completions.create(**chat(), stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == COUNTED
    assert chunks[-1].usage == whole.usage
    async with client.chat.completions.stream(**chat(CITIES), tools=[CHAT_TOOL]) as calling:
        final = await calling.get_final_completion()
    calls = final.choices[0].message.tool_calls or []
    assert [json.loads(call.function.arguments) for call in calls] == [{"city": "Oslo"}, {"city": "Rome"}]
    assert final.choices[0].finish_reason == "tool_calls"


async def test_a_chat_heeds_its_parameters(client: openai.AsyncOpenAI) -> None:
    create = client.chat.completions.create
    short = await create(**chat(max_completion_tokens=3))
    assert (short.choices[0].message.content, short.choices[0].finish_reason) == ("1, 2", "length")
    stopped = await create(**chat(stop=[", 4"], seed=1, presence_penalty=0.5, frequency_penalty=0.5))
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("1, 2, 3", "stop")
    likely = await create(**chat(logprobs=True, top_logprobs=2))
    assert likely.choices[0].logprobs is not None
    tokens = likely.choices[0].logprobs.content or []
    assert "".join(token.token for token in tokens) == COUNTED
    assert {len(token.top_logprobs) for token in tokens} == {2}
    picture: Any = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    seen = await create(**chat([{"type": "text", "text": "What is this?"}, picture]))
    assert (seen.choices[0].message.content or "").startswith("I see 1 image.")
    reasoned = await create(**chat(reasoning_effort="low", n=2))
    assert [choice.message.model_extra for choice in reasoned.choices] == [{"reasoning_content": "Let me see."}] * 2


async def test_tools_go_round_in_a_chat(client: openai.AsyncOpenAI) -> None:
    first = await client.chat.completions.create(**chat(CITIES), tools=[CHAT_TOOL])
    message = first.choices[0].message
    results: Any = [
        {"role": "tool", "tool_call_id": call.id, "content": f"sun {place}"}
        for place, call in enumerate(message.tool_calls or [])
    ]
    history = [*said(CITIES), message, *results]
    second = await client.chat.completions.create(model=SCRIPTED, messages=history, tools=[CHAT_TOOL])
    assert second.choices[0].message.content == "The tools say: sun 0; sun 1"


async def test_a_stored_chat_is_listed_read_changed_and_deleted(client: openai.AsyncOpenAI) -> None:
    stored = client.chat.completions
    made = await stored.create(**chat(metadata={"topic": "stored"}), store=True)

    async def listed() -> list[str]:
        return [one.id async for one in stored.list(metadata={"topic": "stored"})]

    assert await until(listed, what="the archiver") == [made.id]
    assert (await stored.retrieve(made.id)).choices == made.choices
    assert [message.content async for message in stored.messages.list(made.id)] == [COUNT]
    changed = await stored.update(made.id, metadata={"topic": "changed"})
    assert changed.metadata == {"topic": "changed"}
    assert (await stored.delete(made.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await stored.retrieve(made.id)


async def test_completions_embeddings_and_models(client: openai.AsyncOpenAI) -> None:
    completion = await client.completions.create(model=SCRIPTED, prompt=COUNT)
    stream = await client.completions.create(model=SCRIPTED, prompt=COUNT, stream=True)
    assert completion.choices[0].text == COUNTED
    assert "".join([chunk.choices[0].text async for chunk in stream]) == COUNTED
    packed = await client.embeddings.create(model=SCRIPTED, input=["sun", "rain"], dimensions=8)
    plain = await client.embeddings.create(model=SCRIPTED, input="sun", dimensions=8, encoding_format="float")
    assert [len(one.embedding) for one in packed.data] == [8, 8]
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)
    assert {model.id async for model in client.models.list()} == {SCRIPTED, REASONER}
    assert (await client.models.retrieve(SCRIPTED)).id == SCRIPTED


# What the client makes of headers, streams and errors


async def test_raw_answers_have_their_headers(client: openai.AsyncOpenAI) -> None:
    raw = await client.responses.with_raw_response.create(**asked(), extra_headers={"x-request-id": "mine"})
    made = raw.parse()
    assert raw.headers["x-request-id"] == "mine"
    assert made._request_id == "mine"
    assert raw.headers["location"] == f"/v1/responses/{made.id}?stream=true"
    named = [raw.headers[f"x-openchat-{name}"] for name in ("model", "engine", "attempts")]
    assert named == [SCRIPTED, "scripted", "1"]
    streamed = client.chat.completions.with_streaming_response.create(**chat(), stream=True)
    async with streamed as answer:
        lines = [line async for line in answer.iter_lines()]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["location"].startswith("/v1/chat/completions/chatcmpl-")
    assert answer.headers["x-request-id"].startswith("req_")
    assert lines[-2:] == ["data: [DONE]", ""]
    data = [line for line in lines if line.startswith("data: {")]
    assert len([line for line in lines if line.startswith("id: ")]) == len(data)


FAILURES: list[tuple[dict[str, Any], type[openai.APIStatusError], str, str | None]] = [
    (asked(model="none"), openai.NotFoundError, "model_not_found", "model"),
    (asked(temperature=9), openai.BadRequestError, "invalid_value", "temperature"),
    (asked(5), openai.BadRequestError, "invalid_value", "input"),  # type: ignore[arg-type]
    (asked(extra_body={"inptu": 1}), openai.BadRequestError, "unsupported_parameter", "inptu"),
    (asked("x" * 200_000), openai.APIStatusError, "body_too_large", None),
    (asked(previous_response_id="resp_" + ZEROS), openai.NotFoundError, "response_not_found", "previous_response_id"),
    (asked(conversation="conv_" + ZEROS), openai.NotFoundError, "conversation_not_found", "conversation"),
    (asked(extra_headers={"authorization": "Bearer wrong"}), openai.AuthenticationError, "invalid_api_key", None),
]


@pytest.mark.parametrize(("given", "kind", "code", "param"), FAILURES, ids=[code for *_, code, _ in FAILURES])
async def test_an_error_is_of_the_class_the_code_and_the_parameter(
    client: openai.AsyncOpenAI, given: dict[str, Any], kind: type[openai.APIStatusError], code: str, param: str | None
) -> None:
    with pytest.raises(kind) as caught:
        await client.responses.create(**given)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert caught.value.request_id is not None


async def test_what_does_not_fit_the_context_fails_in_the_words_of_each_api(client: openai.AsyncOpenAI) -> None:
    too_long = "word " * 9_000
    failed = await client.responses.create(**asked(too_long))
    assert (failed.status, failed.error and failed.error.code) == ("failed", "context_length_exceeded")
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(**chat(too_long))
    assert caught.value.code == "context_length_exceeded"


async def test_a_turn_in_a_conversation_that_is_busy_is_a_conflict(client: openai.AsyncOpenAI) -> None:
    talk = (await client.conversations.create()).id
    busy = await client.responses.create(**asked(LONG, conversation=talk, background=True))
    with pytest.raises(openai.ConflictError) as caught:
        await client.responses.create(**asked(conversation=talk))
    assert caught.value.code == "conversation_locked"
    await client.responses.cancel(busy.id)


async def test_what_is_not_served_is_not_found(client: openai.AsyncOpenAI) -> None:
    for call in (client.responses.compact(**asked()), client.responses.input_tokens.count(**asked())):
        with pytest.raises(openai.NotFoundError) as caught:
            await call
        assert caught.value.code == "route_not_found"


async def test_the_sync_client_sees_the_same(target: Target) -> None:
    await asyncio.to_thread(_ask_in_a_thread, target)


def _ask_in_a_thread(target: Target) -> None:
    with openai.OpenAI(base_url=target.base_url, api_key=target.key, max_retries=0, timeout=30) as client:
        events = list(client.responses.create(**asked(), stream=True))
        response_id = events[0].response.id  # type: ignore[union-attr]
        for after in range(len(events)):
            rest = client.responses.retrieve(response_id, stream=True, starting_after=after)
            assert list(rest) == events[after + 1 :]
        with client.responses.stream(model=REASONER, input=COUNT) as stream:
            list(stream)
            assert stream.get_final_response().output_text == COUNTED
        assert client.chat.completions.create(**chat()).choices[0].message.content == COUNTED
        with client.chat.completions.stream(**chat()) as chunks:
            assert chunks.get_final_completion().choices[0].message.content == COUNTED
        assert client.responses.parse(**asked(PERSON), text_format=Person).output_parsed == Person(name="Ann", age=33)
        assert [one.id for one in client.models.list()][:1] == [SCRIPTED]
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve("resp_" + ZEROS)
