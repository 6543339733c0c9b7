"""The engine `openai`: what goes to a remote API for each ability, and how its answers come through."""

from __future__ import annotations

import base64
import json
from array import array
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine.base import Delta, Embedder
from engine.remote.engine import RemoteEngine
from schemas.capabilities import Capabilities
from schemas.errors import CapabilityMissing, ContextTooLong, EngineError, UpstreamRefused, WorkerLost
from schemas.logprobs import LikelyToken, TokenLogprob
from schemas.requests import EmbeddingInput, GenerationRequest, ImageContent, Message, OutputFormat, TextContent
from schemas.tools import Tool
from tests.remotes import Make, collect, generation, making, over, sent, text
from tests.upstream import Upstream, answers, says, sends, streams, upstream

TIME = Tool(name="get_time")
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.fixture
async def remote() -> AsyncIterator[Upstream]:
    async with upstream() as server:
        yield server


@pytest.fixture
async def make(remote: Upstream) -> AsyncIterator[Make]:
    async with making(remote.url) as make:
        yield make


@pytest.fixture
def engine(make: Make) -> RemoteEngine:
    return make()


@pytest.mark.parametrize(
    ("wanted", "body"),
    [
        (OutputFormat(), {"type": "json_object"}),
        (OutputFormat(schema=SCHEMA), {"type": "json_schema", "json_schema": {"name": "output", "schema": SCHEMA}}),
        (
            OutputFormat(schema=SCHEMA, name="n", description="d", strict=True),
            {"type": "json_schema", "json_schema": {"name": "n", "description": "d", "schema": SCHEMA, "strict": True}},
        ),
    ],
)
async def test_the_output_format_goes_out(
    engine: RemoteEngine, remote: Upstream, wanted: OutputFormat, body: dict[str, Any]
) -> None:
    assert (await sent(engine, remote, output_format=wanted))["response_format"] == body


async def test_logprobs_are_asked_for_and_come_with_the_text_of_their_tokens(
    engine: RemoteEngine, remote: Upstream
) -> None:
    euro = [{"token": "\\xe2", "logprob": -1.0, "bytes": [226], "top_logprobs": []}]
    rest = [
        {
            "token": "a",
            "logprob": -0.5,
            "bytes": [97],
            "top_logprobs": [
                {"token": "a", "logprob": -0.5, "bytes": [97]},
                {"token": "b", "logprob": -2, "bytes": None},
            ],
        }
    ]
    remote.scripts = [
        streams(
            {"delta": {"content": ""}, "logprobs": {"content": euro}},
            {"delta": {"content": "€a"}, "logprobs": {"content": rest}},
        )
    ]
    first, last = await collect(engine, logprobs=True, top_logprobs=2)
    assert first.logprobs == (
        TokenLogprob("\\xe2", -1.0, (226,)),
        TokenLogprob("a", -0.5, top=(LikelyToken("a", -0.5), LikelyToken("b", -2.0))),
    )
    assert last.logprobs == ()
    assert remote.calls[0].body["logprobs"] is True
    assert remote.calls[0].body["top_logprobs"] == 2
    assert "top_logprobs" not in await sent(engine, remote, logprobs=True)


async def test_wishes_go_out_as_they_came_and_who_the_user_is_does_not(engine: RemoteEngine, remote: Upstream) -> None:
    wishes = {
        "reasoning_effort": "xhigh",
        "verbosity": "low",
        "prompt_cache_key": "k",
        "prompt_cache_retention": "in_memory",
    }
    body = await sent(engine, remote, **wishes, logit_bias={5: -100, 7: 2.5}, user="u", safety_identifier="s")
    assert {name: body[name] for name in wishes} == wishes
    assert body["logit_bias"] == {"5": -100, "7": 2.5}
    assert not {"user", "safety_identifier"} & set(body)
    plain = await sent(engine, remote, verbosity="medium", truncation="auto", max_tool_calls=3)
    assert set(plain) == set(await sent(engine, remote))
    completion = await sent(engine, remote, messages=[], prompt="x", logit_bias={5: 1}, prompt_cache_key="k")
    assert (completion["logit_bias"], "prompt_cache_key" in completion) == ({"5": 1}, False)


async def test_images_go_out_between_their_texts_and_text_alone_as_one_string(
    engine: RemoteEngine, remote: Upstream
) -> None:
    image = "data:image/png;base64,AAAA"
    message = Message(
        "user", [TextContent("What is"), ImageContent(image, "low"), ImageContent(image), TextContent("?")]
    )
    body = await sent(engine, remote, messages=[Message("user", [TextContent("a"), TextContent("b")]), message])
    assert body["messages"][0]["content"] == "ab"
    assert body["messages"][1]["content"] == [
        {"type": "text", "text": "What is"},
        {"type": "image_url", "image_url": {"url": image, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": image}},
        {"type": "text", "text": "?"},
    ]


@pytest.mark.parametrize("names", [("reasoning_content",), ("reasoning",), ("reasoning", "reasoning_content")])
async def test_reasoning_comes_once_and_apart_from_the_text(
    engine: RemoteEngine, remote: Upstream, names: tuple[str, ...]
) -> None:
    usage = {"prompt_tokens": 2, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 3}}
    remote.scripts = [
        streams(
            {"delta": dict.fromkeys(names, "Hm")}, {"delta": dict.fromkeys(names, ".") | {"content": "So"}}, usage=usage
        )
    ]
    *steps, last = await collect(engine)
    assert steps == [Delta(reasoning="Hm"), Delta(reasoning="."), Delta(text="So")]
    assert (last.output_tokens, last.reasoning_tokens) == (5, 3)


async def test_an_empty_finish_reason_and_fields_of_null_say_nothing(engine: RemoteEngine, remote: Upstream) -> None:
    remote.scripts = [
        sends(
            b": waiting\n\n",
            b'data: {"choices":null}\n\ndata: {"choices":[]}\n\n',
            b'data: {"choices":[{"delta":null,"finish_reason":""}],"usage":null}\n\n',
            b'data: {"choices":[{"delta":{"content":"a","tool_calls":null,"role":null},"logprobs":null}]}\n\n',
            b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":null}}\n\n',
        )
    ]
    deltas = [delta async for delta in engine.generate(generation())]
    assert deltas == [Delta(), Delta(text="a"), Delta(finish_reason="stop")], "the comment is a sign of life"


# Completions


async def test_a_bare_prompt_goes_to_the_legacy_completions(engine: RemoteEngine, remote: Upstream) -> None:
    logprobs = {
        "tokens": ["b"],
        "token_logprobs": [-0.25],
        "top_logprobs": [{"b": -0.25, "c": -1.5}],
        "text_offset": [0],
    }
    remote.scripts = [
        streams(
            {"text": "b", "logprobs": logprobs},
            {"text": "", "finish_reason": "length"},
            usage={"prompt_tokens": 1, "completion_tokens": 1},
        )
    ]
    wanted = {"messages": [], "prompt": "a", "max_output_tokens": 1, "logprobs": True, "top_logprobs": 2}
    first, last = await collect(engine, **wanted)
    assert first == Delta(
        text="b", logprobs=(TokenLogprob("b", -0.25, top=(LikelyToken("b", -0.25), LikelyToken("c", -1.5))),)
    )
    assert (last.finish_reason, last.input_tokens, last.output_tokens) == ("length", 1, 1)
    assert remote.calls[0].path == "/v1/completions"
    assert remote.calls[0].body == {
        "model": "m-1",
        "prompt": "a",
        "max_tokens": 1,
        "logprobs": 2,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_a_prompt_of_token_ids_goes_out_as_it_is(engine: RemoteEngine, remote: Upstream) -> None:
    assert (await sent(engine, remote, messages=[], prompt=[1, 2, 3]))["prompt"] == [1, 2, 3]


# Embeddings


def encoded(*numbers: float) -> str:
    return base64.b64encode(array("f", numbers).tobytes()).decode()


def embeddings(*items: Any) -> bytes:
    data = [{"object": "embedding", "index": index, "embedding": item} for index, item in items]
    return json.dumps({"data": data, "usage": {"prompt_tokens": 4, "total_tokens": 4}}).encode()


async def test_embeddings_come_in_the_order_of_their_inputs_whatever_their_encoding(
    engine: RemoteEngine, remote: Upstream
) -> None:
    assert isinstance(engine, Embedder)
    remote.scripts = [answers(200, embeddings((1, encoded(0.5, -2.0)), (0, [1.0, 0.25])))]
    found = await engine.embed(EmbeddingInput(inputs=["a", "b"], dimensions=2))
    assert found.vectors == [[1.0, 0.25], [0.5, -2.0]]
    assert found.input_tokens == 4
    assert remote.calls[0].path == "/v1/embeddings"
    assert remote.calls[0].body == {"model": "m-1", "input": ["a", "b"], "dimensions": 2, "encoding_format": "base64"}


async def test_dimensions_that_the_upstream_ignores_are_no_success(engine: RemoteEngine, remote: Upstream) -> None:
    remote.scripts = [answers(200, embeddings((0, [1.0, 0.25])))]
    with pytest.raises(UpstreamRefused, match="dimensions"):
        await engine.embed(EmbeddingInput(inputs=["a"], dimensions=1))


async def test_embeddings_are_asked_for_again_before_they_came(engine: RemoteEngine, remote: Upstream) -> None:
    remote.scripts = [answers(429, retry_after="0.01"), answers(200, embeddings((0, [1.0])))]
    assert (await engine.embed(EmbeddingInput(inputs=[[1, 2]]))).vectors == [[1.0]]
    assert len(remote.calls) == 2


@pytest.mark.parametrize("body", [embeddings((0, [1.0])), embeddings((0, "?"), (1, "?")), b"[]", b'{"data": [{}, {}]}'])
async def test_embeddings_that_are_nonsense_fail_the_request(
    engine: RemoteEngine, remote: Upstream, body: bytes
) -> None:
    remote.scripts = [answers(200, body)]
    with pytest.raises(EngineError, match="The upstream sent"):
        await engine.embed(EmbeddingInput(inputs=["a", "b"]))
    assert len(remote.calls) == 1


async def test_a_server_without_embeddings_is_heard(engine: RemoteEngine, remote: Upstream) -> None:
    remote.scripts = [answers(501, {"error": {"message": "no embeddings here"}})]
    with pytest.raises(UpstreamRefused, match="no embeddings here"):
        await engine.embed(EmbeddingInput(inputs=["a"]))


# Continuation


async def test_a_text_is_continued_as_the_last_message_where_the_upstream_can(make: Make, remote: Upstream) -> None:
    engine = make(upstreams=over(remote.url, continues=True))
    assert engine.capabilities.continues_text
    assert not engine.capabilities.continues
    remote.scripts = [streams({"delta": {"content": " c"}}, usage={"prompt_tokens": 9, "completion_tokens": 1})]
    *_, last = await collect(engine, prefix=("a", " b"), max_output_tokens=5)
    assert remote.calls[0].body == {
        "model": "m-1",
        "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a b"}],
        "add_generation_prompt": False,
        "continue_final_message": True,
        "max_tokens": 3,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert (last.input_tokens, last.output_tokens) == (7, 1), "the prompt alone, as far as we can know"


async def test_with_the_maximum_in_the_prefix_nothing_is_asked(make: Make, remote: Upstream) -> None:
    engine = make(upstreams=over(remote.url, continues=True))
    assert await collect(engine, prefix=("a", "b"), max_output_tokens=2) == [Delta(finish_reason="length")]
    assert remote.calls == []


async def test_a_bare_prompt_is_continued_as_one_text(make: Make, remote: Upstream) -> None:
    engine = make(upstreams=over(remote.url, continues=True))
    body = await sent(engine, remote, messages=[], prompt="a", prefix=(" b",))
    assert body == {"prompt": "a b"}
    with pytest.raises(WorkerLost):
        await collect(engine, messages=[], prompt=[1], prefix=("b",))


async def test_only_an_upstream_that_can_continue_is_asked_to(make: Make, remote: Upstream) -> None:
    async with upstream() as other:
        engine = make(upstreams=[*over(other.url, weight=1000.0), *over(remote.url, continues=True)])
        other.scripts, remote.scripts = [says("x")], [says("b")]
        assert await text(engine, prefix=("a",)) == "b"
        assert other.calls == []
        assert await text(engine) == "x"
    with pytest.raises(WorkerLost):
        await collect(make(), prefix=("a",))


# What it declares


def test_all_is_declared_but_what_the_entry_takes_away(make: Make) -> None:
    everything = Capabilities(
        completions=True,
        tools=True,
        json_schema=True,
        logprobs=True,
        images=True,
        embeddings=True,
        logit_bias=True,
        reasoning_effort=True,
        verbosity=True,
    )
    assert make().capabilities == everything
    assert make(lacks=["tools", "images"]).capabilities.names == [
        name for name in everything.names if name not in ("tools", "images")
    ]
    assert make(embeds=True).capabilities == Capabilities(generates=False, embeddings=True)
    assert make(context_length=4096).context_length == 4096


async def test_what_is_not_declared_is_refused_by_name(make: Make, remote: Upstream) -> None:
    with pytest.raises(CapabilityMissing, match="tools"):
        await collect(make(lacks=["tools"]), tools=[TIME])
    with pytest.raises(CapabilityMissing, match="generates"):
        await collect(make(embeds=True))
    with pytest.raises(CapabilityMissing, match="embeddings"):
        await make(lacks=["embeddings"]).embed(EmbeddingInput(inputs=["a"]))
    assert remote.calls == []


@pytest.mark.parametrize(
    "error",
    [
        {"message": "This model's maximum context length is 512 tokens, you sent 600.", "code": 400},
        {"message": "512 tokens, you sent 600", "code": "context_length_exceeded"},
        {"message": "512 tokens, you sent 600", "code": 400, "type": "exceed_context_size_error"},
    ],
)
@pytest.mark.parametrize("in_stream", [True, False])
async def test_a_prompt_that_is_too_long_is_told_as_such(
    engine: RemoteEngine, remote: Upstream, error: dict[str, Any], in_stream: bool
) -> None:
    said = b"data: " + json.dumps({"error": error}).encode() + b"\n\n"
    remote.scripts = [sends(said) if in_stream else answers(400, {"error": error})]
    with pytest.raises(ContextTooLong, match="you sent 600"):
        await collect(engine)
    assert len(remote.calls) == 1


async def test_an_input_too_long_for_a_batch_is_no_failure_of_the_server(
    engine: RemoteEngine, remote: Upstream
) -> None:
    words = "input (613 tokens) is too large to process. increase the physical batch size (current batch size: 512)"
    remote.scripts = [answers(500, {"error": {"code": 500, "message": words, "type": "server_error"}})]
    with pytest.raises(ContextTooLong, match="613 tokens"):
        await engine.embed(EmbeddingInput(inputs=["a"]))
    assert len(remote.calls) == 1


async def test_an_adapter_is_asked_for_by_its_name_at_the_upstream(make: Make, remote: Upstream) -> None:
    engine = make(adapters={"polite": "polite-v2"}, upstream_model="base")
    remote.scripts = [says("a")]
    for adapter in ("", "polite"):
        await collect(engine, adapter=adapter)
    assert [call.body["model"] for call in remote.calls] == ["base", "polite-v2"]


def test_a_request_for_embeddings_needs_just_that() -> None:
    request = GenerationRequest(model="m", embed=EmbeddingInput(inputs=["a"]))
    assert Capabilities(generates=False, embeddings=True).missing_for(request) is None
