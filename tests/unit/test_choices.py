"""A log with several choices, whose items interleave, as each format shows it; and one with one, which is as ever."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pytest

from engine.base import Delta, ToolPiece
from formats.chat import chat_completion, encode_chat
from formats.completions import completion, encode_completions
from formats.items import turn_items
from formats.plain_text import encode_plain_text
from formats.responses import encode_responses, response_object
from formats.structure import closing_events, end_events
from formats.transcript import Transcript, joined_usage, transcript_of
from formats.ui_messages import encode_ui_messages
from schemas.errors import BadEntry
from schemas.events import (
    ChoiceEnd,
    EndReason,
    Entry,
    ErrorDetail,
    Failed,
    Incomplete,
    ItemAdded,
    ItemDone,
    Text,
    Usage,
    encode_event,
)
from schemas.logprobs import TokenLogprob
from schemas.requests import MAX_CHOICES, GenerationRequest, Message
from tests.unit.test_formats import DELTAS, Log

CHAT = GenerationRequest(model="m", messages=[Message("user", "hi")], n=3, include_usage=True, logprobs=True)
BARE = GenerationRequest(model="m", prompts=["p", "q"], n=2, include_usage=True, logprobs=True)


def said(choice: int, count: int = 3) -> list[Delta]:
    texts = [f"{choice}:{i} " for i in range(count)]
    return [Delta(text=text, tokens=(i,), logprobs=(TokenLogprob(text, -1.0),)) for i, text in enumerate(texts)]


CALLS = [
    Delta(reasoning="hm", tokens=(1,)),
    Delta(text="so", tokens=(2,)),
    Delta(tool=ToolPiece(0, "f"), tokens=(3,)),
    Delta(tool=ToolPiece(0, "", "{}"), tokens=(4,)),
    Delta(tool=ToolPiece(1, "g", "[]"), tokens=(5,)),
]


def end(log: Log, choice: int, reason: EndReason = "stop") -> None:
    found = log.transcript.choice(choice)
    usage = Usage(input_tokens=10 + choice, output_tokens=len(found.tokens), reasoning_tokens=1)
    wanted = log.transcript.accepted.request.choices if log.transcript.accepted else 0
    left = wanted - 1 - sum(other.end is not None for other in log.transcript.choices)
    log.write(
        *end_events(
            log.transcript,
            3,
            ChoiceEnd(choice=choice, reason=reason, usage=usage, calls=found.calls, left=left),
        )
    )


def interleaved(request: GenerationRequest, scripts: dict[int, list[Delta]]) -> Log:
    """All said, in an order that mixes the choices; ended in the order in which they come to their end."""
    log = Log(request)
    chance = random.Random(5)
    waiting = {choice: list(deltas) for choice, deltas in scripts.items()}
    while waiting:
        choice = chance.choice(sorted(waiting))
        if waiting[choice]:
            log.take(waiting[choice].pop(0), choice=choice)
        else:
            end(log, choice, "length" if choice == 1 else "stop")
            del waiting[choice]
    usage = joined_usage([c.end for c in log.transcript.choices if c.end is not None], request.n)
    log.write(Incomplete(t=4, usage=usage))
    return log


@pytest.fixture
def chat() -> Log:
    return interleaved(CHAT, {0: said(0, 5), 1: said(1, 8), 2: CALLS})


@pytest.fixture
def bare() -> Log:
    return interleaved(BARE, {choice: said(choice, 3 + choice) for choice in range(4)})


def test_items_of_choices_interleave_and_each_has_its_own(chat: Log) -> None:
    transcript = transcript_of(chat.entries)
    events = [entry.event for entry in chat.entries if isinstance(entry.event, Text)]
    assert [e.choice for e in events] != sorted(e.choice for e in events), "nothing interleaves"
    assert [item.index for item in transcript.items] == list(range(6))
    shown = [[(item.kind, item.content) for item in choice.items] for choice in transcript.choices]
    assert shown == [
        [("message", "0:0 0:1 0:2 0:3 0:4 ")],
        [("message", "".join(f"1:{i} " for i in range(8)))],
        [("reasoning", "hm"), ("message", "so"), ("function_call", "{}"), ("function_call", "[]")],
    ]
    assert [choice.tokens for choice in transcript.choices] == [list(range(5)), list(range(8)), [1, 2, 3, 4, 5]]
    assert [choice.calls for choice in transcript.choices] == [0, 0, 2]
    assert transcript.calls == 2
    assert [item.status for item in transcript.choices[1].items] == ["incomplete"]
    assert not transcript.open_items


@pytest.mark.parametrize("seed", range(5))
def test_cut_anywhere_each_choice_goes_on_to_the_same_items_and_none_is_said_twice(seed: int) -> None:
    scripts = {0: said(0), 1: DELTAS, 2: CALLS}
    whole = interleaved(CHAT, scripts)
    for cut in range(3, len(whole.entries)):
        log = Log(CHAT)
        log.entries.clear()
        log.transcript = Transcript()
        log.write(*(entry.event for entry in whole.entries[:cut]))
        left = {k: d for k, d in scripts.items() if log.transcript.choice(k).end is None}
        random.Random(seed).shuffle(order := list(left))
        for choice in order:
            there = log.transcript.choice(choice).tokens
            log.take(*(delta for delta in left[choice] if delta.tokens[0] not in there), choice=choice)
            end(log, choice)
        for mine, right in zip(log.transcript.choices, whole.transcript.choices, strict=True):
            assert mine.tokens == right.tokens
            assert [(i.kind, i.name, i.content) for i in mine.items if i.content] == [
                (i.kind, i.name, i.content) for i in right.items
            ]


def test_a_choice_that_says_nothing_opens_and_closes_an_empty_message() -> None:
    log = Log(CHAT)
    log.take(*said(0))
    end(log, 2)
    (item,) = log.transcript.choices[2].items
    assert (item.kind, item.content, item.status, item.index, item.choice) == ("message", "", "completed", 1, 2)
    assert log.transcript.choices[2].end is not None
    assert [item.index for item in log.transcript.open_items] == [0]


def test_closing_what_is_open_closes_the_open_item_of_each_choice() -> None:
    log = Log(CHAT)
    log.take(*said(1), choice=1)
    log.take(*CALLS[:1], choice=2)
    end(log, 1)
    log.take(*said(0))
    events = closing_events(log.transcript, 9, complete=False)
    assert [e.output_index for e in events if isinstance(e, ItemDone)] == [1, 2]
    log.write(*events)
    assert not log.transcript.open_items
    assert [choice.end is not None for choice in log.transcript.choices] == [False, True, False]


def test_usage_counts_a_prompt_once_and_the_output_of_all() -> None:
    log = Log(BARE)
    for choice, count in ((0, 1), (1, 2), (3, 4)):
        log.take(*said(choice, count), choice=choice)
    for choice in (1, 3):
        end(log, choice)
    expected = Usage(input_tokens=11 + 13, output_tokens=1 + 2 + 4, reasoning_tokens=2)
    assert log.transcript.usage == expected, "choice 0 has not ended: its tokens count, its prompt is choice 1's"
    for choice in (0, 2):
        end(log, choice)
    ends = [choice.end for choice in log.transcript.choices if choice.end is not None]
    assert joined_usage(ends, 2).input_tokens == 10 + 12, "those of the first choice of each prompt"


def test_no_log_has_more_choices_than_a_response_may_have() -> None:
    log = Log(CHAT)
    with pytest.raises(BadEntry):
        log.transcript.note(Text(t=1, delta="x", choice=MAX_CHOICES))
    with pytest.raises(BadEntry):
        log.transcript.note(ItemAdded(t=1, choice=MAX_CHOICES))


def test_chat_chunks_of_each_choice_put_together_are_its_answer(chat: Log) -> None:
    chunks = chat.shown(encode_chat)
    answers = chat_completion(chat.transcript)["choices"]
    assert [answer["index"] for answer in answers] == [0, 1, 2]
    by_choice: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for chunk in chunks:
        for choice in chunk["choices"]:
            by_choice[choice["index"]].append(choice)
    for answer in answers:
        parts = by_choice[answer["index"]]
        deltas = [part["delta"] for part in parts]
        assert ["role" in delta for delta in deltas] == [True] + [False] * (len(deltas) - 1)
        reasons = [part["finish_reason"] for part in parts]
        assert reasons == [None] * (len(parts) - 1) + [answer["finish_reason"]]
        assert "".join(delta.get("content") or "" for delta in deltas) == answer["message"]["content"]
        tokens = [token for part in parts if part["logprobs"] for token in part["logprobs"]["content"]]
        assert tokens == answer["logprobs"]["content"]
    assert [answer["finish_reason"] for answer in answers] == ["stop", "length", "tool_calls"]
    calls = [piece for part in by_choice[2] for piece in part["delta"].get("tool_calls", [])]
    assert [piece["index"] for piece in calls] == [0, 0, 1, 1]
    assert [piece["id"] for piece in calls if "id" in piece] == [
        call["id"] for call in answers[2]["message"]["tool_calls"]
    ]
    assert answers[2]["message"]["reasoning_content"] == "hm"


def test_the_usage_comes_once_behind_all_choices_and_the_end_has_a_cursor(chat: Log) -> None:
    chunks = chat.shown(encode_chat)
    assert [chunk["usage"] is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 5 + 8 + 5
    assert chunks[-1]["usage"]["prompt_tokens"] == 10
    last = len(chat.entries) - 1
    assert encode_chat(chat.entries, last).endswith(f"\nid: {chat.entries[last].id}\n\n".encode())
    ended = [i for i, e in enumerate(chat.entries) if isinstance(e.event, ItemDone) and e.event.end is not None]
    assert [bool(encode_chat(chat.entries, i)) for i in ended] == [True, True, False], (
        "the last one's stands at the end"
    )


def test_completions_show_the_choices_of_each_prompt_with_offsets_of_their_own(bare: Log) -> None:
    chunks = bare.shown(encode_completions)
    answers = completion(bare.transcript)["choices"]
    assert [answer["text"] for answer in answers] == ["".join(d.text for d in said(k, 3 + k)) for k in range(4)]
    assert [answer["finish_reason"] for answer in answers] == ["stop", "length", "stop", "stop"]
    for answer in answers:
        parts = [c for chunk in chunks for c in chunk["choices"] if c["index"] == answer["index"]]
        assert "".join(part["text"] for part in parts) == answer["text"]
        assert [part["finish_reason"] for part in parts] == [None] * (len(parts) - 1) + [answer["finish_reason"]]
        offsets = [offset for part in parts if part["logprobs"] for offset in part["logprobs"]["text_offset"]]
        assert offsets == answer["logprobs"]["text_offset"]
        assert offsets == [4 * i for i in range(3 + answer["index"])]
    assert chunks[-1]["usage"]["prompt_tokens"] == 10 + 12


def test_an_offset_in_the_log_is_as_good_as_counting(bare: Log) -> None:
    counted, lengths = bare.shown(encode_completions), defaultdict(int)
    for i, entry in enumerate(bare.entries):
        if isinstance(event := entry.event, Text):
            text = Text(
                t=event.t,
                delta=event.delta,
                tokens=event.tokens,
                output_index=event.output_index,
                logprobs=event.logprobs,
                choice=event.choice,
                offset=lengths[event.choice],
            )
            bare.entries[i] = Entry(entry.id, text)
            lengths[event.choice] += len(event.delta)
    assert bare.shown(encode_completions) == counted


def test_the_responses_format_shows_all_items_in_the_order_in_which_they_were_begun(chat: Log) -> None:
    events = chat.shown(encode_responses)
    assert [event["sequence_number"] for event in events] == list(range(len(chat.entries)))
    output = events[-1]["response"]["output"]
    assert output == response_object(chat.transcript)["output"]
    assert len(output) == len({item["id"] for item in output}) == 6
    done = {e["output_index"]: e["item"] for e in events if e["type"] == "response.output_item.done"}
    assert [done[index] for index in range(6)] == output
    for event in events:
        if event["type"] == "response.output_text.done":
            assert event["text"] == output[event["output_index"]]["content"][0]["text"]


def test_what_goes_on_from_it_goes_on_from_the_first_choice(chat: Log) -> None:
    items = turn_items(chat.transcript)
    assert [item["role"] for item in items] == ["user", "assistant"]
    assert items[1]["content"][0]["text"] == "0:0 0:1 0:2 0:3 0:4 "


def test_a_response_that_failed_says_so_once_whatever_choices_had_ended() -> None:
    log = Log(CHAT)
    log.take(*said(0))
    end(log, 0)
    log.take(*said(1), choice=1)
    log.write(*closing_events(log.transcript, 3, complete=False), Failed(t=3, error=ErrorDetail("engine_error", "no")))
    chunks = log.shown(encode_chat)
    assert [c["choices"][0]["finish_reason"] for c in chunks if c.get("choices")].count("stop") == 1
    assert chunks[-1]["error"]["code"] == "engine_error"


def test_the_log_of_one_choice_is_byte_for_byte_what_it_was() -> None:
    log = Log()
    log.take(*DELTAS)
    log.finish()
    raw = [encode_event(entry.event).decode() for entry in log.entries[2:]]
    assert raw == [
        '{"type":"in_progress","t":1}',
        '{"type":"item_added","t":2,"item":"reasoning"}',
        '{"type":"part_added","t":2}',
        '{"type":"reasoning","t":2,"delta":"hm","tokens":[1]}',
        '{"type":"reasoning","t":2,"delta":"!","tokens":[2]}',
        '{"type":"reasoning_done","t":2}',
        '{"type":"part_done","t":2}',
        '{"type":"item_done","t":2}',
        '{"type":"item_added","t":2,"output_index":1}',
        '{"type":"part_added","t":2,"output_index":1}',
        '{"type":"text","t":2,"delta":"a","tokens":[3],"output_index":1}',
        '{"type":"text","t":2,"delta":"b","tokens":[4],"output_index":1,"logprobs":[{"token":"b","logprob":-0.5,'
        '"top":[{"token":"c","logprob":-1.0,"bytes":[]}]}]}',
        '{"type":"text_done","t":2,"output_index":1}',
        '{"type":"part_done","t":2,"output_index":1}',
        '{"type":"item_done","t":2,"output_index":1}',
        '{"type":"item_added","t":2,"output_index":2,"item":"function_call","name":"f","tokens":[5]}',
        '{"type":"arguments","t":2,"delta":"{\\"x\\":","tokens":[6],"output_index":2}',
        '{"type":"arguments","t":2,"delta":"1}","tokens":[7],"output_index":2}',
        '{"type":"arguments_done","t":2,"output_index":2}',
        '{"type":"item_done","t":2,"output_index":2}',
        '{"type":"item_added","t":2,"output_index":3,"item":"function_call","name":"g","call":1}',
        '{"type":"arguments","t":2,"delta":"{}","tokens":[8],"output_index":3,"call":1}',
        '{"type":"arguments_done","t":3,"output_index":3}',
        '{"type":"item_done","t":3,"output_index":3}',
        '{"type":"completed","t":3,"usage":{"input_tokens":3,"output_tokens":8,"reasoning_tokens":2}}',
    ]


def test_an_item_that_was_begun_outside_of_one_is_still_shown() -> None:
    """No worker of ours writes such a log."""
    log = Log()
    log.write(Text(t=2, delta="x", tokens=(1,)))
    log.write(*closing_events(log.transcript, 3, complete=True))
    assert [part["text"] for part in log.shown(encode_responses)[-1]["item"]["content"]] == ["x"]


def test_formats_that_show_one_answer_show_the_first_and_how_that_ended(chat: Log) -> None:
    assert b"".join(encode_plain_text(chat.entries, i) for i in range(len(chat.entries))) == b"0:0 0:1 0:2 0:3 0:4 "
    chunks = chat.shown(encode_ui_messages)
    assert "".join(chunk["delta"] for chunk in chunks if chunk["type"] == "text-delta") == "0:0 0:1 0:2 0:3 0:4 "
    assert [chunk["finishReason"] for chunk in chunks if chunk["type"] == "finish"] == ["stop"]
