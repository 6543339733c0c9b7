"""Reasoning, tool calls, JSON, logprobs, completions and embeddings through the official client, real processes."""

from __future__ import annotations

import base64
import json
import struct
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

ASK: dict[str, Any] = {"model": "synthetic", "messages": [{"role": "user", "content": "hi"}]}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string", "minLength": 400}}, "required": ["city"]}
CHAT_TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
TOOL: Any = {"type": "function", "name": "weather", "parameters": PARAMETERS}
SLOW = {"synthetic-reasoning": "20", "synthetic-tools": "2", "synthetic-tokens-per-second": "40"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningStack]:
    data_dir: Path = tmp_path_factory.mktemp("stack") / "data"
    settings = {"synthetic_tokens_per_second": "1000", "lease_ms": "1000", "unsupported_parameters": "warn"}
    async with running(data_dir, "--engine", "synthetic", "--workers", "2", **settings) as stack:
        yield stack


async def test_a_call_of_a_tool_and_its_result_go_round(stack: RunningStack) -> None:
    client = stack.client()
    first = await client.chat.completions.create(**ASK, tools=[CHAT_TOOL], tool_choice="required")
    (call,) = first.choices[0].message.tool_calls or []
    assert first.choices[0].finish_reason == "tool_calls"
    assert first.choices[0].message.content is None
    assert call.type == "function"
    assert set(json.loads(call.function.arguments)) == {"city"}
    history = [*ASK["messages"], first.choices[0].message.model_dump(exclude_none=True)]
    history.append({"role": "tool", "tool_call_id": call.id, "content": "rain"})
    second = await client.chat.completions.create(model="synthetic", messages=history, tools=[CHAT_TOOL], max_tokens=2)
    assert second.choices[0].message.content == " t0 t1"


async def test_the_same_round_with_the_responses_api(stack: RunningStack) -> None:
    client = stack.client()
    first = await client.responses.create(model="synthetic", input="hi", tools=[TOOL], tool_choice="required")
    call = first.output[0]
    assert call.type == "function_call"
    given: Any = [
        {"role": "user", "content": "hi"},
        call.model_dump(exclude_none=True),
        {"type": "function_call_output", "call_id": call.call_id, "output": "rain"},
    ]
    second = await client.responses.create(model="synthetic", input=given, tools=[TOOL], max_output_tokens=2)
    assert second.output_text == " t0 t1"


async def test_of_several_tools_one_that_is_allowed_is_called_and_all_are_shown(stack: RunningStack) -> None:
    other: Any = TOOL | {"name": "clock"}
    choice: Any = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "clock"}]}
    response = await stack.client().responses.create(
        model="synthetic", input="hi", tools=[TOOL, other], tool_choice=choice
    )
    assert [(item.type, getattr(item, "name", "")) for item in response.output] == [("function_call", "clock")]
    assert response.to_dict()["tool_choice"] == choice
    assert len(response.tools) == 2


async def test_the_stream_helper_of_the_client_understands_reasoning_text_and_calls(stack: RunningStack) -> None:
    async with stack.client().responses.stream(
        model="synthetic", input="hi", tools=[TOOL], metadata=SLOW | {"synthetic-tokens-per-second": "1000"}
    ) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert [item.type for item in final.output] == ["reasoning", "function_call", "function_call"]
    assert kinds[-1] == "response.completed"
    assert kinds.count("response.function_call_arguments.done") == 2
    assert final.usage is not None
    assert final.usage.output_tokens_details.reasoning_tokens == 20


@pytest.mark.parametrize("sort", ["response.reasoning_text.delta", "response.function_call_arguments.delta"])
async def test_killed_amid_reasoning_or_a_call_the_response_goes_on_with_the_next_token(
    stack: RunningStack, sort: str
) -> None:
    quick = SLOW | {"synthetic-tokens-per-second": "1000"}
    whole = await stack.client().responses.create(model="synthetic", input="hi", tools=[TOOL], metadata=quick)
    stream = await stack.client().responses.create(
        model="synthetic", input="hi", tools=[TOOL], metadata=SLOW, stream=True
    )
    events, killed = [], False
    async for event in stream:
        events.append(event)
        if event.type == sort and not killed:
            killed = True
            kill_the_busy(stack)
    assert killed
    final = events[-1]
    assert final.type == "response.completed", events[-1]
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert shown(final.response) == shown(whole)
    assert "".join(e.delta for e in events if e.type == sort) == "".join(
        text for kind, text in shown(whole) if kind in sort
    )
    await until(lambda: len([n for n in stack.pids() if n.startswith("inference")]) == 2, what="both workers again")


def kill_the_busy(stack: RunningStack) -> None:
    """Both: one of them has it, and neither can finish it before it is dead."""
    for name in ("inference-1", "inference-2"):
        stack.kill(name)


def shown(response: Any) -> list[tuple[str, str]]:
    found = []
    for item in response.output:
        text = item.arguments if item.type == "function_call" else item.content[0].text
        found.append(("function_call_arguments" if item.type == "function_call" else "reasoning_text", text))
    return found


async def test_chat_streams_show_reasoning_and_logprobs(stack: RunningStack) -> None:
    stream = await stack.client().chat.completions.create(
        **ASK, stream=True, max_tokens=5, logprobs=True, top_logprobs=2, metadata={"synthetic-reasoning": "2"}
    )
    chunks = [chunk async for chunk in stream]
    reasoning = [getattr(c.choices[0].delta, "reasoning_content", None) or "" for c in chunks]
    assert "".join(reasoning) == " r0 r1"
    tokens = [t for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.content or []]
    assert [t.token for t in tokens] == [" t0", " t1", " t2"]
    assert all(len(t.top_logprobs) == 2 and t.logprob < 0 for t in tokens)


async def test_output_is_held_to_a_schema_and_parsed_by_the_client(stack: RunningStack) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    answer = await stack.client().chat.completions.create(
        **ASK, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    )
    assert set(json.loads(answer.choices[0].message.content or "")) == {"n"}


async def test_legacy_completions_stream_and_do_not(stack: RunningStack) -> None:
    client = stack.client()
    whole = await client.completions.create(model="synthetic", prompt="hi", max_tokens=3)
    assert whole.choices[0].text == " t0 t1 t2"
    stream = await client.completions.create(
        model="synthetic", prompt="hi", max_tokens=3, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.text for chunk in chunks for c in chunk.choices) == " t0 t1 t2"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


def texts_of(chunks: list[Any], count: int) -> list[str]:
    texts, reasons = [""] * count, [None] * count
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        assert reasons[choice.index] is None, "something came behind the end of a choice"
        texts[choice.index] += (choice.delta.content or "") if hasattr(choice, "delta") else choice.text
        reasons[choice.index] = choice.finish_reason
    assert None not in reasons
    return texts


async def test_several_choices_stream_and_do_not(stack: RunningStack) -> None:
    client = stack.client()
    asked: dict[str, Any] = ASK | {"n": 3, "max_tokens": 5, "logprobs": True}
    whole = await client.chat.completions.create(**asked)
    assert [(c.index, c.message.content, c.finish_reason) for c in whole.choices] == [
        (index, " t0 t1 t2 t3 t4", "length") for index in range(3)
    ]
    assert [len(c.logprobs.content or []) for c in whole.choices if c.logprobs] == [5, 5, 5]
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (1, 15)
    stream = await client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert texts_of(chunks, 3) == [c.message.content for c in whole.choices]
    assert [c.choices[0].delta.role for c in chunks if c.choices].count("assistant") == 3
    assert chunks[-1].usage == whole.usage
    several = await client.completions.create(model="synthetic", prompt=["a b", "c"], n=2, max_tokens=3, logprobs=1)
    assert [(c.index, c.text, c.finish_reason) for c in several.choices] == [
        (i, " t0 t1 t2", "length") for i in range(4)
    ]
    assert several.usage is not None
    assert (several.usage.prompt_tokens, several.usage.completion_tokens) == (3, 12)
    stream = await client.completions.create(model="synthetic", prompt=["a b", "c"], n=2, max_tokens=3, stream=True)
    assert texts_of([chunk async for chunk in stream], 4) == [c.text for c in several.choices]


async def test_killed_amid_several_choices_each_goes_on_and_a_cut_stream_resumes_at_every_cursor(
    stack: RunningStack,
) -> None:
    slow = {"synthetic-tokens-per-second": "40", "synthetic-jitter-ms": "20"}
    async with httpx.AsyncClient(base_url=stack.url(), timeout=60) as http:
        asked = ASK | {"n": 3, "max_tokens": 40, "stream": True, "metadata": slow}
        raw, killed = b"", False
        async with http.stream("POST", "/v1/chat/completions", json=asked) as answer:
            location = answer.headers["location"]
            async for part in answer.aiter_bytes():
                raw += part
                if not killed and raw.count(b" t10") >= 2:
                    killed = True
                    kill_the_busy(stack)
        assert killed
        raw = raw.replace(b": ping\n", b"")
        events = raw.removesuffix(b"data: [DONE]\n\n").split(b"\n\n")[:-1]
        chunks = [json.loads(event.split(b"\n")[0].removeprefix(b"data: ")) for event in events]
        texts = ["", "", ""]
        for choice in (choice for chunk in chunks for choice in chunk["choices"]):
            texts[choice["index"]] += choice["delta"].get("content") or ""
        assert texts == ["".join(f" t{i}" for i in range(40))] * 3
        for place in range(0, len(events), 10):
            cursor = events[place].split(b"\nid: ")[1].decode()
            rest = await http.get(location, headers={"last-event-id": cursor})
            assert rest.content == b"".join(event + b"\n\n" for event in events[place + 1 :]) + b"data: [DONE]\n\n"
        last = events[-1].split(b"\nid: ")[1].decode()
        assert (await http.get(location, headers={"last-event-id": last})).status_code == 204
    await until(lambda: len([n for n in stack.pids() if n.startswith("inference")]) == 2, what="both workers again")


async def test_embeddings_are_what_the_client_asked_for_and_can_be_read_again(stack: RunningStack) -> None:
    client = stack.client()
    as_client = await client.embeddings.create(model="synthetic", input=["a", "b b"], dimensions=8)
    assert [len(one.embedding) for one in as_client.data] == [8, 8]
    assert as_client.usage.prompt_tokens == 3
    raw = await client.embeddings.with_raw_response.create(
        model="synthetic", input=["a", "b b"], dimensions=8, encoding_format="float"
    )
    again = await client.get(raw.headers["location"].removeprefix("/v1"), cast_to=httpx.Response)
    assert again.json() == raw.http_response.json()
    packed = await client.post(
        "/embeddings", body={"model": "synthetic", "input": "a", "encoding_format": "base64"}, cast_to=httpx.Response
    )
    vector = base64.b64decode(packed.json()["data"][0]["embedding"])
    assert abs(sum(x * x for x in struct.unpack(f"<{len(vector) // 4}f", vector)) - 1) < 1e-5


async def test_what_a_model_can_not_do_is_refused_before_it_is_queued(stack: RunningStack) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(openai.BadRequestError) as caught:
        await stack.client().chat.completions.create(
            model="synthetic",
            messages=[{"role": "user", "content": [image]}],  # type: ignore[list-item]
        )
    assert caught.value.code == "capability_missing"
    assert "images" in caught.value.message


async def test_a_response_is_shown_by_the_api_for_its_kind(stack: RunningStack) -> None:
    client = stack.client()
    raw = await client.embeddings.with_raw_response.create(model="synthetic", input="a")
    name = raw.headers["location"].rpartition("/")[2]
    with pytest.raises(openai.NotFoundError, match="/v1/embeddings"):
        await client.responses.retrieve(name)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_what_is_left_out_is_named_in_a_header_and_in_the_log(stack: RunningStack, is_stream: bool) -> None:
    unserved = {"audio": {"voice": "alloy"}, "reasoning_effort": "low", "logit_bias": {"1": 2}, "verbosity": "high"}
    strange = {"new\r\nx-evil: 1": 1, "é,": 2, "seed": 3} | {f"unknown_{number}": 1 for number in range(30)}
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.post(
            f"{stack.url()}/v1/chat/completions",
            json=ASK | {"max_tokens": 3, "stream": is_stream} | unserved | strange,
        )
    assert answer.status_code == 200
    assert " t2" in answer.text
    names = answer.headers["x-openchat-warnings"].split(", ")
    assert names[:4] == ["audio", "new??x-evil:?1", "??", "unknown_0"]
    assert len(names) == 21
    assert names[-1] == "+16"
    assert "x-evil" not in answer.headers
    await until(lambda: "parameters_left_out route=/v1/chat/completions names='audio, new??x-evil" in stack.text)


async def test_a_response_is_not_said_to_have_what_was_left_out(stack: RunningStack) -> None:
    raw = await stack.client().responses.with_raw_response.create(
        model="synthetic", input="hi", max_output_tokens=2, reasoning={"effort": "high", "generate_summary": "auto"}
    )
    assert raw.headers["x-openchat-warnings"] == "reasoning.generate_summary, reasoning.effort"
    response = raw.parse()
    assert response.reasoning is not None
    assert (response.reasoning.effort, response.reasoning.summary) == (None, None)
    plain = await stack.client().responses.with_raw_response.create(model="synthetic", input="hi", max_output_tokens=2)
    assert "x-openchat-warnings" not in plain.headers
    conversation = await stack.client().conversations.with_raw_response.create(extra_body={"colour": "red"})
    assert conversation.headers["x-openchat-warnings"] == "colour"
