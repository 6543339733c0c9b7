"""Which messages are left out of an input that does not fit, and how few tries that takes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from itertools import pairwise

import pytest

from consumers.truncation import FittingGeneration, without_oldest
from engine.base import Delta, Generation
from schemas.capabilities import Capabilities
from schemas.errors import ContextTooLong
from schemas.events import ItemAdded, PartAdded
from schemas.ids import new_response_id
from schemas.requests import GenerationRequest, ImageContent, Message, Role, TextContent
from schemas.tools import ToolCall


class CountingEngine:
    """Counts words, or only says that it is too much; keeps what it was asked."""

    capabilities = Capabilities(continues=True)
    capacity = 1

    def __init__(self, context: int, *, tells: bool = True) -> None:
        self.context_length = context
        self.asked: list[GenerationRequest] = []
        self.fails_late = False
        self._tells = tells

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        self.asked.append(generation.request)
        tokens = sum(len(message.text.split()) for message in generation.request.prompt_messages())
        if tokens + generation.least_room > self.context_length:
            raise ContextTooLong(**{"tokens": tokens, "context": self.context_length} if self._tells else {})
        yield Delta()  # a sign of life
        yield Delta(text="x", tokens=(1,))
        if self.fails_late:
            raise ContextTooLong
        yield Delta(finish_reason="stop", input_tokens=tokens)

    async def start(self, progress: object) -> None: ...

    async def check(self) -> None: ...

    async def close(self) -> None: ...


def said(role: Role, words: int, name: str = "w", *calls: str, of: str = "") -> Message:
    return Message(role, " ".join([name] * words), [ToolCall(call, "f", "") for call in calls], of)


def fitting(
    engine: CountingEngine, messages: list[Message], dropped: int | None = None, **changes: object
) -> FittingGeneration:
    values = {"truncation": "auto", "max_output_tokens": 5} | changes
    request = GenerationRequest(model="m", messages=messages, **values)  # type: ignore[arg-type]
    return FittingGeneration(engine, Generation(id=new_response_id(), request=request), dropped)


async def run(generation: FittingGeneration) -> int:
    """How many tokens of input were counted in the end."""
    *_, last = [delta async for delta in generation.deltas()]
    return last.input_tokens


def chat(turns: int, words: int) -> list[Message]:
    pairs = [(said("user", words, f"q{i}"), said("assistant", words, f"a{i}")) for i in range(turns)]
    return [said("system", 3, "s"), *(message for pair in pairs for message in pair), said("user", words, "last")]


async def test_what_fits_is_left_alone_however_little_room_is_left() -> None:
    engine = CountingEngine(context=64)
    generation = fitting(engine, [*chat(turns=3, words=8), said("developer", 4)], max_output_tokens=60)
    assert await run(generation) == 63
    assert generation.dropped == 0
    assert len(engine.asked) == 1


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize(("turns", "words"), [(4, 10), (50, 3), (2_000, 2), (3, 30)])
async def test_the_oldest_turns_go_until_the_answer_has_room(turns: int, words: int, tells: bool) -> None:
    engine = CountingEngine(context=80, tells=tells)
    messages = chat(turns, words)
    generation = fitting(engine, messages)
    tokens = await run(generation)
    assert tokens + 5 <= 80
    shown = engine.asked[-1].messages
    assert shown[0] == messages[0]
    assert shown[1:] == messages[1 + generation.dropped :], "the newest stay, in their order"
    assert generation.dropped % 2 == 0, "a question goes with its answer"
    assert len(engine.asked) <= 8
    if tells and words < 30:
        assert 80 - tokens < 5 + 4 * 2 * words, "and hardly more goes than must"


async def test_without_a_maximum_a_quarter_of_the_context_is_left_and_with_a_large_one_no_more() -> None:
    for limit in (None, 1_000):
        engine = CountingEngine(context=80)
        assert await run(fitting(engine, chat(turns=20, words=5), max_output_tokens=limit)) <= 60


async def test_where_the_last_message_leaves_little_room_any_will_do_and_where_it_leaves_none_that_is_said() -> None:
    engine = CountingEngine(context=80)
    messages = [*chat(turns=10, words=10)[:-1], said("user", 75)]
    generation = fitting(engine, messages, max_output_tokens=20)
    assert await run(generation) == 78
    assert generation.dropped == 20
    engine = CountingEngine(context=80)
    with pytest.raises(ContextTooLong):
        await run(fitting(engine, [*chat(turns=10, words=10)[:-1], said("user", 80)]))
    assert len(engine.asked) <= 8


async def test_with_nothing_to_leave_out_there_is_one_try() -> None:
    engine = CountingEngine(context=10)
    with pytest.raises(ContextTooLong):
        await run(fitting(engine, [said("system", 5), said("user", 10)]))
    assert len(engine.asked) == 1


async def test_nothing_is_left_out_unless_it_was_asked_for() -> None:
    engine = CountingEngine(context=10)
    with pytest.raises(ContextTooLong):
        await run(fitting(engine, chat(turns=3, words=5), truncation="disabled"))
    assert len(engine.asked) == 1


async def test_what_was_decided_before_is_not_decided_anew() -> None:
    messages = chat(turns=4, words=10)
    engine = CountingEngine(context=1_000)
    assert await run(fitting(engine, messages, dropped=4)) == 3 + 50, "though now it would fit whole"
    engine = CountingEngine(context=60)
    with pytest.raises(ContextTooLong):
        await run(fitting(engine, messages, dropped=2))
    assert len(engine.asked) == 1
    engine = CountingEngine(context=1_000)
    assert await run(fitting(engine, messages, dropped=4, truncation="disabled")) == 53, "nor by another request"


async def test_an_error_after_output_is_no_reason_to_begin_again() -> None:
    engine = CountingEngine(context=1_000)
    engine.fails_late = True
    with pytest.raises(ContextTooLong):
        await run(fitting(engine, chat(turns=3, words=5)))
    assert len(engine.asked) == 1


def kept(*messages: Message) -> list[str]:
    """The first word of each that stays, for every number of messages that may go."""
    counts = range(len(messages) + 1)
    stages = [[message.text.split()[0] for message in without_oldest(messages, count)] for count in counts]
    return [" ".join(one) for one, other in pairwise([*stages, []]) if one != other]


def test_calls_and_their_results_go_together_behind_the_last_message_of_the_user() -> None:
    engine_messages = [
        said("user", 1, "old"),
        said("assistant", 1, "answer"),
        said("user", 1, "ask"),
        said("assistant", 1, "call1", "a", "b"),
        said("tool", 1, "result1a", of="a"),
        said("tool", 1, "result1b", of="b"),
        said("assistant", 1, "call2", "c"),
        said("tool", 1, "result2", of="c"),
    ]
    assert kept(*engine_messages)[-1] == "ask call2 result2"
    assert "ask call1 result1a result1b call2 result2" in kept(*engine_messages)


def test_a_result_that_comes_late_goes_with_its_call() -> None:
    messages = [
        said("user", 1, "old"),
        said("assistant", 1, "call", "a"),
        said("user", 1, "meanwhile"),
        said("assistant", 1, "wait"),
        said("tool", 1, "result", of="a"),
        said("user", 1, "ask"),
    ]
    assert without_oldest(messages, 3) == messages[2:4] + messages[5:]
    assert kept(*messages)[-1] == "ask"
    assert kept(*messages[:3], messages[4])[-1] == "old call meanwhile result", "it is what is to be answered"


def test_a_conversation_without_a_user_keeps_what_is_to_be_answered() -> None:
    messages = [said("assistant", 1, "a"), said("assistant", 1, "b"), said("tool", 1, "stray", of="none")]
    assert kept(*messages)[-1] == "b stray"
    assert kept(said("tool", 1, "stray", of="x"), said("user", 1, "ask"), said("tool", 1, "late", of="y"))[-1] == (
        "ask late"
    )


async def test_images_count_as_well() -> None:
    picture = Message("user", [TextContent("look"), ImageContent("data:image/png;base64,AAAA")])
    engine = CountingEngine(context=20, tells=False)
    generation = fitting(
        engine, [picture, said("assistant", 2), said("user", 15), said("assistant", 2), said("user", 5)]
    )
    assert await run(generation) <= 20
    assert generation.dropped == 4


def test_the_first_item_says_how_much_was_left_out() -> None:
    generation = fitting(CountingEngine(context=1), [], dropped=6)
    first, second, part = generation.marked([ItemAdded(t=1), ItemAdded(t=1, output_index=1), PartAdded(t=1)])
    assert (first, second, part) == (ItemAdded(t=1, dropped=6), ItemAdded(t=1, output_index=1), PartAdded(t=1))
