"""What is the synthetic engine's own: faults on demand, and that it is the same wherever it is continued."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from engine.base import Delta, Generation
from engine.synthetic import faults
from engine.synthetic.engine import SyntheticEngine
from engine.synthetic.least_json import least_value
from schemas.errors import ContextTooLong, EngineDead, EngineError, InvalidRequest
from schemas.requests import EmbeddingInput, OutputFormat
from schemas.tools import Tool, ToolName
from tests.engines.asking import CLOCK, WEATHER, asked, calls_of, collect, continued, ids_of, reasoning_of, text_of
from tests.engines.subjects import OTHER

pytestmark = pytest.mark.skipif(bool(OTHER), reason="only the engine that the environment names is tested")


def engine(**changes: Any) -> SyntheticEngine:
    return SyntheticEngine(**{"tokens_per_second": 100_000, "ttft_ms": 0, "capacity": 4} | changes)


def told(metadata: dict[str, str], **parameters: Any) -> Generation:
    named = {f"synthetic-{key}": value for key, value in metadata.items()}
    return asked("one two three", **{"metadata": named | {"other": "ignored"}} | parameters)


async def until_failure(made: SyntheticEngine, wanted: Generation) -> tuple[list[Delta], EngineError]:
    seen: list[Delta] = []

    async def read() -> None:
        async for delta in made.generate(wanted):
            seen.append(delta)

    with pytest.raises(EngineError) as caught:
        await read()
    return seen, caught.value


async def test_plain_text_counts_its_tokens() -> None:
    *_, last = deltas = await collect(engine(), asked("one two three", max_output_tokens=3))
    assert text_of(deltas) == " t0 t1 t2"
    assert ids_of(deltas) == [0, 1, 2]
    assert (last.finish_reason, last.input_tokens, last.output_tokens) == ("length", 3, 3)
    *_, last = await collect(engine(), asked("one", max_output_tokens=None))
    assert (last.finish_reason, last.output_tokens) == ("stop", 64)


@pytest.mark.parametrize(("kind", "error"), [("error", EngineError), ("dead", EngineDead)])
async def test_it_fails_after_so_many_tokens_and_once(kind: str, error: type[EngineError]) -> None:
    wanted = told({"fail-after": "5", "fail-with": kind})
    seen, failure = await until_failure(engine(), wanted)
    assert type(failure) is error
    assert text_of(seen) == " t0 t1 t2 t3 t4"
    rest = await collect(engine(), continued(wanted, ids_of(seen), text_of(seen)))
    assert text_of(seen) + text_of(rest) == "".join(f" t{i}" for i in range(16))


async def test_faults_of_the_settings_are_those_of_every_request_that_says_nothing_else() -> None:
    made = engine(fail_after=3)
    seen, _ = await until_failure(made, asked())
    assert len(seen) == 3
    assert text_of(await collect(made, told({"fail-after": "0"}, max_output_tokens=5))) == " t0 t1 t2 t3 t4"


@pytest.mark.parametrize("made", [engine(stall_after=4), engine()])
async def test_it_stalls_after_so_many_tokens(made: SyntheticEngine) -> None:
    stream = made.generate(told({"stall-after": "4"}))
    assert [(await anext(stream)).text for _ in range(4)] == [" t0", " t1", " t2", " t3"]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await anext(stream)


async def test_pace_and_jitter_are_those_asked_for_and_the_same_for_the_same_response(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(faults.asyncio, "sleep", pause)
    wanted = told({"tokens-per-second": "0.01", "ttft-ms": "3000", "jitter-ms": "50000"}, max_output_tokens=6)
    runs = []
    for generation in (wanted, wanted, msgspec.structs.replace(wanted, id="resp_" + "0" * 32)):
        pauses.clear()
        await collect(engine(), generation)
        runs.append(list(pauses))
    first, again, other = runs
    assert first == pytest.approx(again, abs=1)
    assert first != pytest.approx(other, abs=1)
    for index, seconds in enumerate(first):
        assert 2 + 100 * index < seconds < 54 + 100 * index


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tokens-per-second", "0"),
        ("tokens-per-second", "nan"),
        ("tokens-per-second", "fast"),
        ("ttft-ms", "-1"),
        ("jitter-ms", "nan"),
        ("jitter-ms", "inf"),
        ("fail-after", "1.5"),
        ("fail-with", "joy"),
        ("stall-after", "-2"),
        ("reasoning", "1000000000"),
        ("tools", "x"),
        ("rainbows", "3"),
        ("fail_after", "3"),
    ],
)
async def test_a_wrong_wish_is_refused_by_its_key(key: str, value: str) -> None:
    with pytest.raises(InvalidRequest, match=f"synthetic-{key}"):
        await collect(engine(), told({key: value}))


async def test_reasoning_comes_first_and_is_counted() -> None:
    *_, last = deltas = await collect(engine(), told({"reasoning": "3"}, max_output_tokens=5))
    assert reasoning_of(deltas) == " r0 r1 r2"
    assert text_of(deltas) == " t0 t1"
    assert (last.output_tokens, last.reasoning_tokens, last.finish_reason) == (5, 3, "length")


SCRIPTS = [
    told({"reasoning": "4"}, max_output_tokens=9),
    told({"reasoning": "2"}, max_output_tokens=None, stop=[" t7"]),
    told({"reasoning": "3", "tools": "2"}, tools=[WEATHER, CLOCK], max_output_tokens=None),
    told({}, tools=[WEATHER], tool_choice="required", max_output_tokens=None),
    told({}, output_format=OutputFormat(schema=WEATHER.parameters), max_output_tokens=None),
    told({}, stop=["1 t12"], logprobs=True, top_logprobs=2),
]


@pytest.mark.parametrize("wanted", SCRIPTS)
async def test_continued_at_every_token_each_kind_of_response_is_the_same(wanted: Generation) -> None:
    whole = await collect(engine(), wanted)
    for cut in range(len(whole)):
        begun = whole[:cut]
        *steps, last = await collect(engine(), continued(wanted, ids_of(begun), text_of(begun)))
        assert [*begun, *steps] == whole[:-1]
        assert (last.text, last.tokens, last.finish_reason) == (
            whole[-1].text,
            whole[-1].tokens,
            whole[-1].finish_reason,
        )
        assert cut + last.output_tokens == whole[-1].output_tokens
        assert sum(1 for delta in begun if delta.reasoning) + last.reasoning_tokens == whole[-1].reasoning_tokens


async def test_calls_are_made_where_they_must_be_or_the_metadata_asks() -> None:
    tools = [WEATHER, CLOCK]
    room: dict[str, Any] = {"tools": tools, "max_output_tokens": None}
    assert calls_of(await collect(engine(), told({}, **room))) == []
    assert calls_of(await collect(engine(), told({"tools": "2"}, tool_choice="none", **room))) == []
    deltas = await collect(engine(), told({"tools": "3"}, **room))
    assert calls_of(deltas) == [
        ("get_weather", {"city": ""}),
        ("get_time", {"zone": "utc"}),
        ("get_weather", {"city": ""}),
    ]
    assert deltas[-1].finish_reason == "stop"
    named = await collect(engine(), told({}, tool_choice=ToolName("get_time"), **room))
    assert calls_of(named) == [("get_time", {"zone": "utc"})]


async def test_a_call_that_is_cut_by_the_maximum_ends_with_length() -> None:
    deltas = await collect(engine(), told({}, tools=[WEATHER], tool_choice="required", max_output_tokens=2))
    assert deltas[-1].finish_reason == "length"
    assert deltas[-1].output_tokens == 2


async def test_a_tool_whose_schema_is_too_hard_is_called_without_arguments_unless_it_is_strict() -> None:
    hard = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^a+$"}}, "required": ["a"]}
    parameters: dict[str, Any] = {"tool_choice": "required", "max_output_tokens": None}
    loose = await collect(engine(), told({}, tools=[Tool(name="f", parameters=hard)], **parameters))
    assert calls_of(loose) == [("f", {})]
    with pytest.raises(InvalidRequest, match="pattern"):
        await collect(engine(), told({}, tools=[Tool(name="f", parameters=hard, strict=True)], **parameters))


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "object"}, {}),
        ({"properties": {"a": {"type": "string"}, "b": {"type": "null"}}, "required": ["a"]}, {"a": ""}),
        ({"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 2}, ["x", "x"]),
        ({"type": "string", "minLength": 3}, "xxx"),
        ({"type": ["integer", "null"], "minimum": 0.5}, 1),
        ({"type": "number", "exclusiveMinimum": 2, "maximum": 9}, 3),
        ({"type": "integer", "maximum": -4}, -4),
        ({"anyOf": [{"const": 7}, {"type": "null"}]}, 7),
        ({"$defs": {"p": {"type": "boolean"}}, "$ref": "#/$defs/p"}, True),
    ],
)
async def test_the_least_value_of_a_simple_schema(schema: dict[str, Any], value: Any) -> None:
    assert least_value(schema) == value
    said = await collect(engine(), asked(output_format=OutputFormat(schema=schema), max_output_tokens=None))
    assert json.loads(text_of(said)) == value


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "rainbow"},
        {"type": "string", "pattern": "a"},
        {"$ref": "#/nowhere"},
        {"$ref": "#"},
        {"type": "array", "minItems": 10**9},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "object", "properties": [], "required": []},
    ],
)
def test_a_schema_that_is_too_hard_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="synthetic"):
        least_value(schema)


async def test_vectors_have_the_dimensions_asked_for_and_depend_on_the_input_alone() -> None:
    one, two = [await engine().embed(EmbeddingInput(inputs=["a b", [1, 2, 3]], dimensions=n)) for n in (8, 8)]
    assert one == two
    assert one.input_tokens == 5
    assert [len(vector) for vector in one.vectors] == [8, 8]
    with pytest.raises(InvalidRequest, match="dimensions"):
        await engine().embed(EmbeddingInput(inputs=["a"], dimensions=0))


async def test_a_context_counts_words_and_ends_the_answer() -> None:
    made = engine(context=10)
    *_, last = await collect(made, asked("one two three", max_output_tokens=None))
    assert (last.output_tokens, last.finish_reason) == (7, "length")
    with pytest.raises(ContextTooLong, match=r"12 .* 10 "):
        await collect(made, asked("word " * 12))
