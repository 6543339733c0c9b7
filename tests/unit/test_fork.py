"""Where a response may be cut for a fork, and what a fork begins with."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from formats.responses import response_object
from formats.transcript import transcript_of
from responses import fork as forks
from responses.accept import Fork, Prepared
from responses.directory import Served
from responses.fork import check_fork, cut, fork_in, forked_request, last_cut
from schemas.api import parse_body
from schemas.bodies import ForkBody
from schemas.capabilities import Capabilities
from schemas.errors import CapabilityMissing, InvalidCursor, InvalidRequest
from schemas.events import (
    Accepted,
    Arguments,
    ArgumentsDone,
    Cancelled,
    Completed,
    Entry,
    EntryId,
    ErrorDetail,
    Failed,
    Incomplete,
    InProgress,
    ItemAdded,
    ItemDone,
    LogEvent,
    PartAdded,
    PartDone,
    Queued,
    Reasoning,
    ReasoningDone,
    Terminal,
    Text,
    TextDone,
    Usage,
)
from schemas.ids import new_conversation_id, new_response_id
from schemas.requests import Branch, EmbeddingInput, GenerationRequest, Message, OutputFormat
from schemas.tools import Tool

OLD = new_response_id()
IDS = Capabilities(continues=True)
TEXTS = Capabilities(continues_text=True)
CLOSING = [TextDone(t=9), PartDone(t=9), ItemDone(t=9)]
ENDS: list[Terminal] = [
    Completed(t=9, usage=Usage()),
    Incomplete(t=9, usage=Usage()),
    Cancelled(t=9),
    Failed(t=9, error=ErrorDetail("x", "y")),
]
BEGUN: list[LogEvent] = [InProgress(t=1, engine="old"), ItemAdded(t=2), PartAdded(t=2)]
FIRST_TEXT = 5


def accepted(**changes: Any) -> Accepted:
    request = GenerationRequest(**{"model": "m", "messages": [Message("user", "hi")], **changes})
    return Accepted(t=0, id=OLD, tenant="a", format="chat", at_ms=1, request=request)


def log(*events: LogEvent, **changes: Any) -> list[Entry]:
    """By sequence, as a tail has it: a takeover in the middle."""
    every = [accepted(**changes), Queued(t=0, lane="interactive"), *events]
    return [Entry(EntryId(min(i // 2, 2), i + 1), event) for i, event in enumerate(every)]


def texts(*deltas: str) -> list[LogEvent]:
    return [Text(t=3 + i, delta=delta, tokens=(i,)) for i, delta in enumerate(deltas)]


def fork_of(entries: list[Entry], after: int) -> Fork:
    return cut(entries, after, engine="new")


def served(can: Capabilities | None) -> Served:
    return Served(name="m", model="m", engine="new", capabilities=can)


def check(entries: list[Entry], after: int, can: Capabilities | None = IDS, **changes: Any) -> None:
    request = msgspec.structs.replace(forks._accepted(entries).request, **changes)
    check_fork(fork_of(entries, after), request, served(can))


def test_a_fork_has_the_events_up_to_the_cut_under_the_same_sequences_as_if_all_had_come_at_once() -> None:
    entries = log(*BEGUN, *texts("a", "b", "c"))
    for after in range(len(entries)):
        prepared = Prepared(
            accepted().request, tenant="a", format="responses", lane="interactive", fork=fork_of(entries, after)
        )
        copies = [entry.event for entry in prepared.entries[2:]]
        assert [str(entry.id) for entry in prepared.entries] == [f"0-{i + 1}" for i in range(max(after + 1, 2))]
        assert [type(event) for event in copies] == [type(entry.event) for entry in entries[2 : after + 1]]
        assert {event.t for event in copies} <= {0}
        assert copies[:1] in ([], [InProgress(t=0, engine="new")])
        assert (prepared.accepted.fork_of, prepared.accepted.fork_after) == (OLD, after)
        assert prepared.request_entry().copied == len(copies)
        transcript = transcript_of(prepared.entries)
        [choice] = transcript.choices
        assert choice.tokens == list(range(max(0, after - FIRST_TEXT + 1)))
        assert (transcript.copied, choice.copied_tokens) == (len(copies), len(choice.tokens))
        assert not choice.has_own_output
        assert transcript.usage == Usage()
        assert transcript.first_text_ms is None, "nothing was generated yet"
        again = fork_in(prepared.entries)
        assert (again.of, again.after, again.events) == (OLD, after, copies)


@pytest.mark.parametrize("end", ENDS, ids=lambda end: type(end).__name__)
def test_what_came_with_the_end_is_not_kept(end: Terminal) -> None:
    last = FIRST_TEXT + 1
    assert last_cut(log(*BEGUN, *texts("a", "b"), *CLOSING, end)) == last
    assert last_cut(log(*BEGUN, *texts("a", "b"))) == last
    assert last_cut(log(end)) == 1
    assert last_cut(log(*BEGUN, *CLOSING, end)) == FIRST_TEXT - 1
    with pytest.raises(InvalidCursor, match=f"is {last}") as caught:
        fork_of(log(*BEGUN, *texts("a", "b"), *CLOSING, end), last + 1)
    assert caught.value.param == "after"


def test_a_last_piece_that_may_be_a_part_of_a_token_is_not_kept() -> None:
    completed, incomplete = ENDS[:2]
    assert last_cut(log(*BEGUN, *texts("a", "b"), *CLOSING, completed, stop=["x"])) == FIRST_TEXT
    assert last_cut(log(*BEGUN, *texts("a", "b"), *CLOSING, incomplete, stop=["x"])) == FIRST_TEXT + 1
    assert last_cut(log(*BEGUN, *texts("a", "b\ufffd"), *CLOSING, incomplete)) == FIRST_TEXT


def test_items_that_were_closed_for_the_next_one_are_kept_closed() -> None:
    reasoning = [ItemAdded(t=1, item="reasoning"), PartAdded(t=1), Reasoning(t=1, delta="hm", tokens=(1,))]
    done = [ReasoningDone(t=1), PartDone(t=1), ItemDone(t=1)]
    message = [ItemAdded(t=1, output_index=1), PartAdded(t=1, output_index=1), Text(t=1, delta="x", output_index=1)]
    entries = log(InProgress(t=1), *reasoning, *done, *message)
    for after in range(len(entries)):
        fork_of(entries, after)


def test_between_the_name_of_a_call_and_its_tokens_is_no_cut() -> None:
    call = [
        ItemAdded(t=1, item="function_call", name="f"),
        Arguments(t=1, delta="{", tokens=(1, 2)),
        ArgumentsDone(t=1),
    ]
    entries = log(InProgress(t=1), *call)
    with pytest.raises(InvalidCursor, match="name of a call"):
        fork_of(entries, 3)
    fork_of(entries, 4)
    named = [msgspec.structs.replace(call[0], tokens=(1,)), *call[1:]]
    fork_of(log(InProgress(t=1), *named), 3)


def test_more_than_one_script_should_write_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = log(*BEGUN, *texts("a", "b"))
    with monkeypatch.context() as patch:
        patch.setattr(forks, "MAX_EVENTS", 6)
        fork_of(entries, 5)
        with pytest.raises(InvalidRequest, match="6 events at most"):
            fork_of(entries, 6)
    monkeypatch.setattr(forks, "MAX_BYTES", 100)
    with pytest.raises(InvalidRequest, match="100 bytes at most"):
        fork_of(entries, 6)


def test_vectors_and_several_choices_have_no_fork() -> None:
    with pytest.raises(InvalidRequest, match="Embeddings"):
        fork_of(log(embed=EmbeddingInput(inputs=["x"])), 0)
    for several in ({"n": 2}, {"prompts": ["a", "b"]}):
        with pytest.raises(InvalidRequest, match="several choices"):
            fork_of(log(**several), 0)


def test_only_an_engine_that_can_go_on_gets_output() -> None:
    tracked = log(*BEGUN, *texts("a", "b"))
    untracked = log(*BEGUN, Text(t=1, delta="a"))
    for can in (IDS, None):
        check(tracked, FIRST_TEXT, can)
    check(tracked, FIRST_TEXT, TEXTS)
    check(untracked, FIRST_TEXT, TEXTS)
    check(untracked, FIRST_TEXT - 1, Capabilities())
    for entries, can, why in (
        (tracked, Capabilities(), "can not continue"),
        (untracked, IDS, "no token ids"),
        (log(*BEGUN, Text(t=1, delta="a"), prompt="x"), TEXTS, "bare prompt"),
        (log(*BEGUN, Text(t=1, delta="a"), tools=[Tool(name="f")]), TEXTS, "tool may be called"),
        (
            log(BEGUN[0], ItemAdded(t=1, item="reasoning"), PartAdded(t=1), Reasoning(t=1, delta="a")),
            TEXTS,
            "text alone",
        ),
        (log(*BEGUN, *texts("a"), output_format=OutputFormat()), IDS, "grammar"),
        (log(*BEGUN, *texts("a"), output_format=OutputFormat()), None, "grammar"),
    ):
        with pytest.raises(CapabilityMissing, match=why) as caught:
            check(entries, FIRST_TEXT, can)
        assert caught.value.param == "after"
    check(log(*BEGUN, *texts("a"), output_format=OutputFormat()), FIRST_TEXT - 1)


def test_the_maximum_counts_what_is_kept() -> None:
    entries = log(*BEGUN, *texts("a", "b"))
    check(entries, FIRST_TEXT, max_output_tokens=2)
    with pytest.raises(InvalidRequest, match="2 tokens, and the maximum is 2") as caught:
        check(entries, FIRST_TEXT + 1, max_output_tokens=2)
    assert caught.value.param == "max_output_tokens"


def test_a_stop_string_that_was_passed_is_refused() -> None:
    entries = log(*BEGUN, *texts("a", "b"))
    check(entries, FIRST_TEXT, stop=["ab"])
    with pytest.raises(InvalidRequest, match="has it already") as caught:
        check(entries, FIRST_TEXT + 1, stop=["ab"])
    assert caught.value.param == "stop"


def body(**given: Any) -> ForkBody:
    return parse_body(msgspec.json.encode({"after": 0} | given), ForkBody, unsupported="reject").body


def test_what_the_body_does_not_say_stays_as_it_was() -> None:
    old = accepted(temperature=0.5, stop=["x"], metadata={"a": "b"}, background=True, traceparent="t")
    request = forked_request(old, body(), deadline_at_ms=7)
    assert request == msgspec.structs.replace(old.request, deadline_at_ms=7, traceparent=None)
    given = {"temperature": 0.0, "top_p": 0.5, "seed": 1, "presence_penalty": 1.0, "frequency_penalty": 1.0}
    given |= {"max_output_tokens": 9, "metadata": {}, "user": "u", "background": False, "store": False}
    request = forked_request(old, body(**given, stop="y", stream=True), deadline_at_ms=7)
    assert {name: getattr(request, name) for name in given} == given
    assert request.stop == ["y"]
    assert forked_request(old, body(stop=[], temperature=None), deadline_at_ms=7).stop == []


def test_a_fork_of_a_turn_has_its_history_and_is_none_and_so_has_a_fork_of_the_fork() -> None:
    conversation = new_conversation_id()
    old = accepted(conversation=conversation)
    request = forked_request(old, body(), deadline_at_ms=0)
    assert (request.conversation, request.branch) == ("", Branch(conversation, OLD))
    again = Accepted(t=0, id=new_response_id(), tenant="a", format="chat", at_ms=1, request=request)
    assert forked_request(again, body(), deadline_at_ms=0).branch == Branch(conversation, OLD)


def test_what_was_not_to_be_stored_has_no_stored_fork() -> None:
    old = accepted(store=False)
    assert not forked_request(old, body(), deadline_at_ms=0).store
    with pytest.raises(InvalidRequest, match="not stored") as caught:
        forked_request(old, body(store=True), deadline_at_ms=0)
    assert caught.value.param == "store"


def test_a_fork_says_where_it_comes_from_and_others_do_not() -> None:
    prepared = Prepared(accepted().request, tenant="a", format="responses", lane="interactive", fork=Fork(OLD, 1, []))
    shown = response_object(transcript_of(prepared.entries))
    assert (shown["fork_of"], shown["fork_after"]) == (OLD, 1)
    assert "fork_of" not in response_object(transcript_of(log()))
