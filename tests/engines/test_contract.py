"""What every engine promises (engine/base.py), whatever it declares.

One suite over all engines: see subjects.py for which. What only some can do is in test_abilities.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re

import pytest

from consumers.truncation import FittingGeneration
from engine.base import Delta, Engine, Generation
from schemas.errors import CapabilityMissing, ContextTooLong, RequestError
from schemas.requests import EmbeddingInput, ImageContent, Message, OutputFormat
from tests.engines.asking import (
    COUNT,
    EMOJI,
    QUESTION,
    WEATHER,
    asked,
    collect,
    continued,
    ids_of,
    needs,
    prompted,
    text_of,
)
from tests.engines.subjects import CONTEXT, SLOTS, Subject

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("generating")]

_PATIENCE_S = 90
"""For what takes seconds where nothing else runs."""
_WORDS = (
    *("apple", "river", "stone", "cloud", "tiger", "paper", "window", "silver"),
    *("garden", "mountain", "letter", "dragon", "candle", "forest", "orange", "bridge"),
)
_LONG_WORDS = "Who was Tutankhamun?"


async def test_a_generation_ends_with_a_reason_and_its_counts(subject: Subject) -> None:
    *steps, last = await collect(subject.engine, asked())
    assert steps
    assert last.finish_reason in ("stop", "length")
    assert last.input_tokens > 0
    if subject.has_ids:
        assert all(step.tokens for step in steps)
        assert last.output_tokens >= len(ids_of([*steps, last])) >= last.output_tokens - 1
    assert 0 < last.output_tokens <= 16
    assert 0 <= last.cached_tokens <= last.input_tokens


async def test_a_plain_question_gets_its_answer(subject: Subject) -> None:
    if not subject.is_fluent:
        pytest.skip(f"the model of {subject.name} knows nothing")
    deltas = await collect(subject.engine, asked(instructions="You are a helpful assistant."))
    assert "Paris" in text_of(deltas)
    assert deltas[-1].finish_reason == "stop"


@pytest.mark.parametrize("limit", [1, 5])
async def test_the_maximum_is_kept(engine: Engine, limit: int) -> None:
    deltas = await collect(engine, asked(COUNT, max_output_tokens=limit))
    assert deltas[-1].finish_reason == "length"
    assert deltas[-1].output_tokens == limit
    assert len(ids_of(deltas)) <= limit


async def test_the_prompt_is_counted_as_it_is_long(engine: Engine) -> None:
    short = await collect(engine, asked("one two", max_output_tokens=4))
    again = await collect(engine, asked("one two", max_output_tokens=2))
    long = await collect(engine, asked("one two " * 20, max_output_tokens=4))
    assert short[-1].input_tokens == again[-1].input_tokens
    assert long[-1].input_tokens >= short[-1].input_tokens + 38


async def test_asked_twice_a_greedy_answer_is_the_same(engine: Engine) -> None:
    first, second = [await collect(engine, asked(COUNT, max_output_tokens=24)) for _ in range(2)]
    assert text_of(first) == text_of(second)
    assert ids_of(first) == ids_of(second)


async def test_a_seed_makes_a_sampled_answer_come_again(engine: Engine) -> None:
    wanted = [asked("Tell me a story.", temperature=1.0, top_p=0.95, seed=seed) for seed in (7, 7)]
    first, second = [await collect(engine, one) for one in wanted]
    assert text_of(first) == text_of(second)


async def test_a_stop_string_within_a_token_ends_the_text_and_is_not_in_it(subject: Subject) -> None:
    whole = await _whole(subject)
    pieces = [delta.text for delta in whole[2:] if len(delta.text) > 2]
    if not pieces:
        pytest.skip(f"{subject.name} has no token of three characters in this answer")
    await _stops_at(subject, whole, pieces[0][1:])


async def test_a_stop_string_across_the_borders_of_tokens_ends_the_text(subject: Subject) -> None:
    whole = [delta for delta in await _whole(subject) if delta.text]
    borders = range(2, len(whole) - 1)
    for border in list(borders)[:4]:
        await _stops_at(subject, whole, whole[border].text[-1:] + whole[border + 1].text[:2])
    await _stops_at(subject, whole, text_of(whole[2:5])[1:])


async def test_of_several_stop_strings_the_first_that_comes_ends_the_text(subject: Subject) -> None:
    whole = await _whole(subject)
    text = text_of(whole)
    late, early = text[12:15], text[6:9]
    stopped = await collect(subject.engine, asked(COUNT, max_output_tokens=24, stop=["never§", late, early]))
    assert text_of(stopped) == text[: min(text.find(early), text.find(late))]
    assert stopped[-1].finish_reason == "stop"


@pytest.mark.parametrize("limit", [8, 24])
async def test_text_held_back_for_a_stop_string_that_does_not_come_is_not_lost(subject: Subject, limit: int) -> None:
    whole = await collect(subject.engine, asked(COUNT, max_output_tokens=limit))
    text = text_of(whole)
    for start in (len(text) // 2, len(text) - 3):
        wanted = asked(COUNT, max_output_tokens=limit, stop=[text[start : start + 5] + "§"])
        stopped = await collect(subject.engine, wanted)
        if not subject.has_ids:  # a remote server may forget it at the limit, as llama.cpp's does
            assert text.startswith(text_of(stopped))
            continue
        assert text_of(stopped) == text
        assert stopped[-1].finish_reason == whole[-1].finish_reason
        await _continues_from_every_delta(subject, wanted, stopped)


async def _whole(subject: Subject) -> list[Delta]:
    whole = await collect(subject.engine, asked(COUNT, max_output_tokens=24))
    assert len([delta for delta in whole if delta.text]) >= 8, "too short an answer to cut"
    return whole


async def _stops_at(subject: Subject, whole: list[Delta], stop: str) -> None:
    wanted = asked(COUNT, max_output_tokens=24, stop=[stop])
    stopped = await collect(subject.engine, wanted)
    assert text_of(stopped) == text_of(whole).partition(stop)[0], f"stop {stop!r}"
    assert stopped[-1].finish_reason == "stop"
    await _continues_from_every_delta(subject, wanted, stopped)


async def _continues_from_every_delta(subject: Subject, wanted: Generation, whole: list[Delta]) -> None:
    """For what holds text back: nothing may be continued from ids whose text was not shown."""
    if not subject.has_ids:
        return
    for cut in range(len(whole)):
        rest = await collect(subject.engine, continued(wanted, ids_of(whole[:cut]), text_of(whole[:cut])))
        assert text_of(whole[:cut]) + text_of(rest) == text_of(whole), f"continued after {cut} deltas"


async def test_characters_of_several_tokens_are_never_split(subject: Subject) -> None:
    deltas = await collect(subject.engine, _of_emoji(subject))
    if subject.is_fluent:
        assert not any("\ufffd" in delta.text for delta in deltas)
        assert not subject.engine.capabilities.completions or any(char in text_of(deltas) for char in "🙂😀🎉你")
    elif subject.decode is not None:  # it may say bytes that are no character at all
        assert text_of(deltas) == await subject.decode(ids_of(deltas)) or deltas[-1].finish_reason == "length"


async def test_the_ids_of_a_delta_are_those_of_exactly_its_text(subject: Subject) -> None:
    needs(subject, "continues")
    if subject.decode is None:
        pytest.skip("how to decode its ids is not known to the suite")
    for wanted in (asked(COUNT, max_output_tokens=40), asked(_LONG_WORDS, max_output_tokens=40), _of_emoji(subject)):
        for delta in await collect(subject.engine, wanted):
            if delta.finish_reason is None:
                assert await subject.decode(list(delta.tokens)) == delta.text


def _of_emoji(subject: Subject) -> Generation:
    if subject.engine.capabilities.completions:
        return prompted(EMOJI, max_output_tokens=48)
    return asked(f"Repeat exactly: {EMOJI}", max_output_tokens=48)


async def test_continued_from_every_delta_a_greedy_answer_is_the_same_token_for_token(subject: Subject) -> None:
    wanted = asked(QUESTION)
    whole = await _uninterrupted(subject, wanted)
    border = 0
    for delta in whole[:-1]:
        await _is_the_same_from(subject, wanted, whole, border)
        border += len(delta.tokens)


async def test_continued_from_every_tenth_token_a_long_greedy_answer_is_the_same(subject: Subject) -> None:
    wanted = asked(COUNT, max_output_tokens=120)
    whole = await _uninterrupted(subject, wanted)
    for border in range(10, len(ids_of(whole)), 10):
        await _is_the_same_from(subject, wanted, whole, border)


async def test_continued_in_the_middle_of_a_word_an_answer_is_the_same(subject: Subject) -> None:
    wanted = asked(_LONG_WORDS, max_output_tokens=32)
    whole = await _uninterrupted(subject, wanted)
    cuts = []
    for index, (before, after) in enumerate(itertools.pairwise(whole)):
        if before.text[-1:].isalpha() and after.text[:1].isalpha():
            cuts.append(len(ids_of(whole[: index + 1])))
    assert cuts or not subject.is_fluent
    for border in cuts:
        await _is_the_same_from(subject, wanted, whole, border)


async def test_continued_in_the_middle_of_a_character_an_answer_is_the_same(subject: Subject) -> None:
    """The prefix is token ids: the next ones complete the character, and the first text is all of it."""
    wanted = _of_emoji(subject)
    whole = await _uninterrupted(subject, wanted)
    cuts, border = [], 0
    for delta in whole:
        if len(delta.tokens) > 1 and not delta.text.isascii() and "\ufffd" not in delta.text:
            cuts.extend(range(border + 1, border + len(delta.tokens)))
        border += len(delta.tokens)
    if not cuts:
        pytest.skip(f"{subject.name} said no character of several tokens")
    for border in cuts[:8]:
        await _is_the_same_from(subject, wanted, whole, border)


async def _uninterrupted(subject: Subject, wanted: Generation) -> list[Delta]:
    needs(subject, "continues")
    return await collect(subject.engine, wanted)


async def _is_the_same_from(subject: Subject, wanted: Generation, whole: list[Delta], border: int) -> None:
    ids, text = ids_of(whole), text_of(whole)
    shown, begun = await _shown(subject, whole, border)
    rest = await collect(subject.engine, continued(wanted, ids[:border], shown))
    assert text_of(rest) in (text[len(shown) :], text[len(shown) - len(begun) :]), f"continued after {border} tokens"
    assert ids[:border] + ids_of(rest) == ids, f"continued after {border} tokens"
    assert border + rest[-1].output_tokens == whole[-1].output_tokens
    assert rest[-1].input_tokens == whole[-1].input_tokens
    assert rest[-1].finish_reason == whole[-1].finish_reason


async def _shown(subject: Subject, whole: list[Delta], border: int) -> tuple[str, str]:
    """The whole characters of the first `border` tokens; and those of them that belong to a delta cut by it.

    Such a delta is never in a log, so an engine may give its text anew as a whole.
    """
    text, count = "", 0
    for delta in whole:
        count += len(delta.tokens)
        if count > border:
            left = list(delta.tokens[: len(delta.tokens) - (count - border)])
            begun = (await subject.decode(left)).rstrip("\ufffd") if left and subject.decode is not None else ""
            return text + begun, begun
        text += delta.text
    return text, ""


async def test_with_the_maximum_already_in_the_prefix_nothing_is_added(subject: Subject) -> None:
    wanted = asked(COUNT, max_output_tokens=6)
    whole = await _uninterrupted(subject, wanted)
    rest = await collect(subject.engine, continued(wanted, ids_of(whole), text_of(whole)))
    assert text_of(rest) == ""
    assert rest[-1].finish_reason == "length"
    assert rest[-1].output_tokens == 0
    assert rest[-1].input_tokens == whole[-1].input_tokens


async def test_leaving_generations_frees_their_slots_at_once(engine: Engine) -> None:
    for _ in range(2):
        streams = [engine.generate(asked("Tell me a long story.", max_output_tokens=400)) for _ in range(SLOTS)]
        async with asyncio.timeout(_PATIENCE_S):
            await asyncio.gather(*(anext(stream) for stream in streams))
            await asyncio.gather(*(stream.aclose() for stream in streams))
    async with asyncio.timeout(_PATIENCE_S / 3):
        await collect(engine, asked(max_output_tokens=4))


async def test_a_cancelled_reader_frees_its_slot_as_well(engine: Engine) -> None:
    async def read(begun: asyncio.Event) -> None:
        async with contextlib.aclosing(
            engine.generate(asked("Tell me a long story.", max_output_tokens=400))
        ) as stream:
            async for _ in stream:
                begun.set()

    events = [asyncio.Event() for _ in range(SLOTS)]
    tasks = [asyncio.create_task(read(event)) for event in events]
    async with asyncio.timeout(_PATIENCE_S):
        await asyncio.gather(*(event.wait() for event in events))
    for task in tasks:
        task.cancel()
    assert all(isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*tasks, return_exceptions=True))
    async with asyncio.timeout(_PATIENCE_S / 3):
        await collect(engine, asked(max_output_tokens=4))


async def test_sixteen_at_once_are_not_mixed(engine: Engine) -> None:
    wanted = [asked(f"Repeat this word: {word}", max_output_tokens=8 + i) for i, word in enumerate(_WORDS)]
    assert len(wanted) == SLOTS <= engine.capacity
    alone = [await collect(engine, one) for one in wanted]
    async with asyncio.timeout(_PATIENCE_S):
        together = await asyncio.gather(*(collect(engine, one) for one in wanted))
    assert [text_of(deltas) for deltas in together] == [text_of(deltas) for deltas in alone]
    assert [ids_of(deltas) for deltas in together] == [ids_of(deltas) for deltas in alone]
    assert [deltas[-1].output_tokens for deltas in together] == [deltas[-1].output_tokens for deltas in alone]


async def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(subject: Subject) -> None:
    with pytest.raises(RequestError) as caught:
        await collect(subject.engine, asked("word " * (CONTEXT + 100)))
    if subject.engine.context_length:
        assert isinstance(caught.value, ContextTooLong)
        assert subject.engine.context_length == CONTEXT
        numbers = [int(digits) for digits in re.findall(r"\d+", caught.value.message)]
        assert CONTEXT in numbers
        assert any(number >= CONTEXT + 100 for number in numbers)
    assert await collect(subject.engine, asked(max_output_tokens=2)), "and it goes on"


async def test_a_conversation_that_does_not_fit_is_cut_until_it_does(subject: Subject) -> None:
    turn = [Message("user", "Say the words."), Message("assistant", " ".join(_WORDS))]
    messages = [Message("system", "Be brief."), *turn * 40, Message("user", QUESTION)]
    wanted = asked(messages=messages, truncation="auto", max_output_tokens=8)
    fitting = FittingGeneration(subject.engine, wanted, None)
    *_, last = [delta async for delta in fitting.deltas()]
    assert 0 < fitting.dropped < 80
    assert fitting.dropped % 2 == 0, "a question goes with its answer"
    assert last.input_tokens + 8 <= CONTEXT
    if subject.engine.context_length:
        assert last.input_tokens > CONTEXT * 3 / 4, "and not much more than must be"


async def test_a_prompt_that_leaves_less_room_than_is_wanted_is_refused_with_both_numbers(subject: Subject) -> None:
    if not subject.engine.context_length:
        pytest.skip(f"{subject.name} knows no context length")
    fits = asked(max_output_tokens=2)
    tokens = (await collect(subject.engine, fits))[-1].input_tokens
    for room, is_refused in ((CONTEXT - tokens, False), (CONTEXT - tokens + 1, True)):
        wanted = Generation(id=fits.id, request=fits.request, least_room=room)
        with pytest.raises(ContextTooLong) if is_refused else contextlib.nullcontext() as caught:
            await collect(subject.engine, wanted)
    assert caught is not None
    assert (caught.value.tokens, caught.value.context) == (tokens, CONTEXT)


async def test_an_answer_without_a_maximum_ends_where_the_context_does(subject: Subject) -> None:
    if not subject.engine.context_length:
        pytest.skip(f"{subject.name} knows no context length")
    few, more = [
        (await collect(subject.engine, asked("word " * count, max_output_tokens=1)))[-1].input_tokens
        for count in (10, 20)
    ]
    words = (CONTEXT - 60 - few) * 10 // (more - few)
    wanted = asked("word " * words, max_output_tokens=None, temperature=1.0, seed=-1)
    *_, last = await collect(subject.engine, wanted)
    assert CONTEXT - 100 < last.input_tokens + last.output_tokens <= CONTEXT


@pytest.mark.parametrize(
    "name",
    [
        *("tools", "json_schema", "logprobs", "completions", "images", "embeddings"),
        *("logit_bias", "reasoning_effort", "verbosity"),
    ],
)
async def test_what_it_does_not_declare_is_refused_by_name_and_never_left_out(subject: Subject, name: str) -> None:
    if getattr(subject.engine.capabilities, name):
        pytest.skip(f"{subject.name} has {name}")
    picture = Message("user", [ImageContent("data:image/png;base64,iVBORw0KGgo=")])
    wanted = {
        "tools": asked(tools=[WEATHER]),
        "json_schema": asked(output_format=OutputFormat()),
        "logprobs": asked(logprobs=True),
        "completions": prompted("Once upon a time"),
        "images": asked(messages=[picture]),
        "embeddings": asked(messages=[], embed=EmbeddingInput(inputs=["a"])),
        "logit_bias": asked(logit_bias={1: 1.0}),
        "reasoning_effort": asked(reasoning_effort="low"),
        "verbosity": asked(verbosity="low"),
    }[name]
    with pytest.raises(CapabilityMissing, match=name):
        await collect(subject.engine, wanted)


async def test_it_checks_well(engine: Engine) -> None:
    await engine.check()
