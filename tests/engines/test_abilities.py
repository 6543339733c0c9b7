"""What an engine promises where it declares it: completions, logprobs, JSON, tools."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.base import Delta, Generation
from schemas.errors import ContextTooLong, RequestError
from schemas.requests import Message, OutputFormat
from schemas.tools import Tool, ToolCall, ToolName
from tests.engines.asking import (
    CLOCK,
    COUNT,
    EMOJI,
    WEATHER,
    asked,
    calls_of,
    collect,
    continued,
    ids_of,
    needs,
    prompted,
    text_of,
)
from tests.engines.subjects import CONTEXT, Subject

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("generating")]

_PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "colour": {"enum": ["red", "green"]},
        "is_old": {"type": "boolean"},
    },
    "required": ["name", "colour", "is_old"],
    "additionalProperties": False,
}
_ROOM = 200
"""Tokens that are enough for what a schema bounds."""


async def test_a_bare_prompt_is_completed(subject: Subject) -> None:
    needs(subject, "completions")
    *_, last = deltas = await collect(subject.engine, prompted("one two three four", max_output_tokens=8))
    assert text_of(deltas)
    if not subject.engine.capabilities.generates or not subject.is_fluent:
        return
    chat = await collect(subject.engine, asked("one two three four", max_output_tokens=8))
    assert last.input_tokens < chat[-1].input_tokens, "no chat template"


async def test_a_prompt_of_token_ids_is_taken_as_it_is(subject: Subject) -> None:
    needs(subject, "completions", "continues")
    ids = ids_of(await collect(subject.engine, asked(COUNT, max_output_tokens=12)))
    *_, last = await collect(subject.engine, prompted(ids, max_output_tokens=6))
    assert last.input_tokens == len(ids)
    assert 0 < last.output_tokens <= 6


async def test_a_completion_is_continued_token_for_token(subject: Subject) -> None:
    needs(subject, "completions", "continues")
    wanted = prompted("one two three four five six", max_output_tokens=24)
    whole = await collect(subject.engine, wanted)
    for cut in range(0, len(whole), 3):
        rest = await collect(subject.engine, continued(wanted, ids_of(whole[:cut]), text_of(whole[:cut])))
        assert ids_of(whole[:cut]) + ids_of(rest) == ids_of(whole)
        assert text_of(whole[:cut]) + text_of(rest) == text_of(whole)


async def test_a_completion_that_does_not_fit_is_refused(subject: Subject) -> None:
    needs(subject, "completions")
    kind = ContextTooLong if subject.engine.context_length else RequestError
    with pytest.raises(kind):
        await collect(subject.engine, prompted("word " * (CONTEXT + 100)))


async def test_a_bias_keeps_a_token_away_or_brings_it(subject: Subject) -> None:
    needs(subject, "logit_bias", "continues")
    plain = ids_of(await collect(subject.engine, asked(COUNT, max_output_tokens=6)))
    without = asked(COUNT, max_output_tokens=6, logit_bias={plain[0]: -100})
    whole = await collect(subject.engine, without)
    assert plain[0] not in ids_of(whole)
    rest = await collect(subject.engine, continued(without, ids_of(whole[:2]), text_of(whole[:2])))
    assert ids_of(whole[:2]) + ids_of(rest) == ids_of(whole), "also where another worker goes on"
    forced = await collect(subject.engine, asked(COUNT, max_output_tokens=3, logit_bias={plain[-1]: 100}))
    assert forced[-1].output_tokens == 3
    assert set(ids_of(forced)) <= {plain[-1]}


async def test_a_bias_for_what_is_no_token_is_the_callers_fault(subject: Subject) -> None:
    needs(subject, "logit_bias", "continues")
    with pytest.raises(RequestError):
        await collect(subject.engine, asked(logit_bias={999_999_999: 1}))
    assert await collect(subject.engine, asked(max_output_tokens=2)), "and it goes on"


@pytest.mark.parametrize("top", [0, 3])
async def test_every_token_has_its_logprob_and_those_asked_for_beside_it(subject: Subject, top: int) -> None:
    needs(subject, "logprobs")
    deltas = await collect(subject.engine, asked(COUNT, logprobs=True, top_logprobs=top, max_output_tokens=20))
    _check_logprobs(subject, deltas, top)
    for entry in (entry for delta in deltas for entry in delta.logprobs if top):
        assert entry.logprob == pytest.approx(entry.top[0].logprob), "greedy takes the most likely one"
        assert entry.token == entry.top[0].token


@pytest.mark.parametrize("stop", [" three", "2, 3", "never§", "ee§"])
async def test_logprobs_are_those_of_the_text_that_is_shown(subject: Subject, stop: str) -> None:
    needs(subject, "logprobs")
    plain = await collect(subject.engine, asked(COUNT, stop=[stop], max_output_tokens=20))
    deltas = await collect(subject.engine, asked(COUNT, logprobs=True, stop=[stop], max_output_tokens=20))
    assert text_of(deltas) == text_of(plain)
    _check_logprobs(subject, deltas, 0)


async def test_logprobs_of_pieces_of_characters_have_their_bytes(subject: Subject) -> None:
    needs(subject, "logprobs")
    needs(subject, "completions")
    deltas = await collect(subject.engine, prompted(EMOJI, logprobs=True, top_logprobs=2, max_output_tokens=24))
    _check_logprobs(subject, deltas, 2)


async def test_a_continued_answer_has_the_logprobs_of_its_rest(subject: Subject) -> None:
    needs(subject, "logprobs", "continues")
    wanted = asked(COUNT, logprobs=True, max_output_tokens=16)
    whole = await collect(subject.engine, wanted)
    rest = await collect(subject.engine, continued(wanted, ids_of(whole[:5]), text_of(whole[:5])))
    _check_logprobs(subject, rest, 0)
    expected = [entry for delta in whole[5:] for entry in delta.logprobs]
    found = [entry for delta in rest for entry in delta.logprobs]
    assert [entry.token for entry in found] == [entry.token for entry in expected]
    # a batch and single tokens are not computed alike; where weights are few bits it shows
    assert [e.logprob for e in found] == pytest.approx([e.logprob for e in expected], abs=0.5)


def _check_logprobs(subject: Subject, deltas: list[Delta], top: int) -> None:
    entries = [entry for delta in deltas for entry in delta.logprobs]
    assert entries
    assert all(entry.logprob <= 0 and len(entry.top) == top for entry in entries)
    assert all(likely.logprob <= 0 for entry in entries for likely in entry.top)
    if subject.has_ids:
        assert all(len(delta.logprobs) == len(delta.tokens) for delta in deltas)
    said = b"".join(bytes(entry.bytes) or entry.token.encode() for entry in entries)
    # with the end there may come the rest of a token that a stop string cut, which has no logprob of its own
    shown = text_of(deltas[:-1]).encode()
    if subject.has_ids and "\ufffd" not in text_of(deltas):
        assert said.startswith(shown), (said, shown)


@pytest.mark.parametrize("strict", [None, True])
async def test_output_of_a_json_schema_parses_and_fits_it(subject: Subject, strict: bool | None) -> None:
    needs(subject, "json_schema")
    shape = OutputFormat(name="person", schema=_PERSON, strict=strict)
    wanted = asked("Describe a person as JSON.", output_format=shape, max_output_tokens=_ROOM)
    deltas = await collect(subject.engine, wanted)
    if not subject.is_fluent and deltas[-1].finish_reason == "length":
        assert text_of(deltas).lstrip().startswith("{")  # a toy model may write blanks until its limit
        return
    assert deltas[-1].finish_reason == "stop"
    found = json.loads(text_of(deltas))
    assert set(found) == {"name", "colour", "is_old"}
    assert isinstance(found["name"], str)
    assert found["colour"] in ("red", "green")
    assert isinstance(found["is_old"], bool)


async def test_output_that_is_any_json_object_is_one(subject: Subject) -> None:
    needs(subject, "json_schema")
    wanted = asked('Say {"a": 1}', output_format=OutputFormat(), max_output_tokens=_ROOM)
    deltas = await collect(subject.engine, wanted)
    text = text_of(deltas)
    assert text.lstrip().startswith("{")
    if deltas[-1].finish_reason == "stop":  # a toy model may go on until its limit
        assert isinstance(json.loads(text), dict)


async def test_a_schema_that_is_none_is_the_callers_fault(subject: Subject) -> None:
    needs(subject, "json_schema")
    shape = OutputFormat(name="x", schema={"type": "no such type"})
    with pytest.raises(RequestError):
        await collect(subject.engine, asked(output_format=shape))
    await collect(subject.engine, asked(max_output_tokens=2))


@pytest.mark.parametrize(("choice", "name"), [("required", "get_weather"), (ToolName("get_time"), "get_time")])
async def test_a_call_that_must_be_made_is_made(subject: Subject, choice: Any, name: str) -> None:
    needs(subject, "tools")
    if not subject.forces_calls:
        pytest.skip(f"the server behind {subject.name} forces no calls")
    tools = [WEATHER] if choice == "required" else [WEATHER, CLOCK]
    deltas = await collect(subject.engine, _calling(tools, tool_choice=choice))
    if not subject.is_fluent and deltas[-1].finish_reason == "length":
        assert next(delta.tool for delta in deltas if delta.tool is not None).name == name  # it may write blanks
        return
    assert deltas[-1].finish_reason == "stop"
    (called, arguments), *more = calls_of(deltas)
    assert called == name
    assert isinstance(arguments, dict)
    assert not more or all(other == name for other, _ in more)
    if name == "get_weather":
        assert isinstance(arguments["city"], str)


async def test_a_model_that_may_call_answers_or_calls(subject: Subject) -> None:
    needs(subject, "tools")
    deltas = await collect(subject.engine, _calling([WEATHER]))
    assert text_of(deltas) or calls_of(deltas)


async def test_a_model_that_may_not_call_answers(subject: Subject) -> None:
    needs(subject, "tools")
    deltas = await collect(subject.engine, _calling([WEATHER], tool_choice="none", max_output_tokens=16))
    assert text_of(deltas)
    assert not calls_of(deltas)


async def test_the_result_of_a_call_is_taken_as_part_of_the_conversation(subject: Subject) -> None:
    needs(subject, "tools")
    call = ToolCall("call_1", "get_weather", '{"city": "Paris"}')
    turns = [
        Message("user", "How is the weather in Paris?"),
        Message("assistant", "", tool_calls=[call]),
        Message("tool", "sunny, 21 degrees", tool_call_id="call_1"),
    ]
    shorter = await collect(subject.engine, asked(messages=turns[:1], max_output_tokens=8))
    deltas = await collect(subject.engine, asked(messages=turns, max_output_tokens=8))
    assert deltas[-1].input_tokens > shorter[-1].input_tokens


def _calling(tools: list[Tool], **parameters: Any) -> Generation:
    text = "What is the weather in Paris?"
    return asked(text, **{"tools": tools, "max_output_tokens": _ROOM, "parallel_tool_calls": False} | parameters)
