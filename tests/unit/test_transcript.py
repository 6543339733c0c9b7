"""A folded log, and the table of statuses."""

from __future__ import annotations

import itertools

import pytest

from formats.structure import closing_events
from formats.transcript import TRANSITIONS, Status, Transcript, advance, transcript_of
from schemas.errors import BadEntry
from schemas.events import (
    Accepted,
    Completed,
    Entry,
    EntryId,
    Fence,
    InProgress,
    ItemAdded,
    ItemDone,
    LogEvent,
    PartAdded,
    PartDone,
    Queued,
    Text,
    TextDone,
    Usage,
    decode_event,
    encode_event,
    parse_entry_id,
)
from schemas.ids import new_response_id
from schemas.requests import GenerationRequest, Message

REQUEST = GenerationRequest(model="m", messages=[Message("user", "hi")])


def log_of(*events: LogEvent) -> list[Entry]:
    """A log in which every fence starts the next attempt."""
    head: list[LogEvent] = [
        Accepted(t=0, id=new_response_id(), tenant="a", format="chat", at_ms=1, request=REQUEST),
        Queued(t=0, lane="interactive"),
    ]
    entries, attempt, number = [], 0, 1
    for event in [*head, *events]:
        if isinstance(event, Fence):
            attempt += 1
            entries.append(Entry(EntryId(attempt, 0), event))
        else:
            entries.append(Entry(EntryId(attempt, number), event))
            number += 1
    return entries


FENCE = Fence(t=1, consumer="w", boot="b")
HANDED_BACK = Fence(t=1, consumer="w", boot="b", released=True)
OPENING: list[LogEvent] = [InProgress(t=1), ItemAdded(t=1), PartAdded(t=1)]


@pytest.mark.parametrize(("status", "target"), list(itertools.product(Status, Status)))
def test_only_what_the_table_allows_is_a_transition(status: Status, target: Status) -> None:
    if target in TRANSITIONS[status]:
        assert advance(status, target) is target
    else:
        with pytest.raises(BadEntry):
            advance(status, target)


def test_terminal_statuses_lead_nowhere() -> None:
    assert {s for s, targets in TRANSITIONS.items() if not targets} == {
        Status.COMPLETED,
        Status.INCOMPLETE,
        Status.FAILED,
        Status.CANCELLED,
    }


def test_text_and_tokens_run_on_across_attempts() -> None:
    transcript = transcript_of(
        log_of(FENCE, *OPENING, Text(t=5, delta="a", tokens=(1,)), FENCE, Text(t=9, delta="b", tokens=(2, 3)))
    )
    assert (transcript.text, transcript.tokens, transcript.first_text_ms) == ("ab", [1, 2, 3], 5)
    assert (transcript.attempts, transcript.next_number, transcript.last_t) == (2, 8, 9)


def test_attempts_count_as_empty_until_there_is_text_and_not_when_handed_back() -> None:
    assert transcript_of(log_of(FENCE, FENCE)).empty_attempts == 2
    assert transcript_of(log_of(FENCE, FENCE, HANDED_BACK)).empty_attempts == 1
    assert transcript_of(log_of(FENCE, *OPENING, Text(t=1, delta="x"), FENCE)).empty_attempts == 1


def test_text_without_ids_can_not_be_continued() -> None:
    assert transcript_of(log_of(FENCE, *OPENING, Text(t=1, delta="x"))).untracked_text
    assert not transcript_of(log_of(FENCE, *OPENING, Text(t=1, delta="x", tokens=(1,)))).untracked_text


def test_a_hole_a_repeat_and_a_step_back_are_refused() -> None:
    entries = log_of(FENCE, *OPENING)
    for wrong in (
        [*entries[:3], entries[4]],
        [*entries, entries[-1]],
        [*entries[:2], entries[3], entries[2]],
    ):
        with pytest.raises(BadEntry):
            transcript_of(wrong)


def test_closing_events_close_what_is_open() -> None:
    def closing(*events: LogEvent) -> list[type]:
        return [type(e) for e in closing_events(transcript_of(log_of(FENCE, *events)), 1, complete=True)]

    assert closing() == []
    assert closing(InProgress(t=1)) == []
    assert closing(*OPENING[:2]) == [ItemDone]
    assert closing(*OPENING) == [TextDone, PartDone, ItemDone]
    assert closing(*OPENING, TextDone(t=1)) == [PartDone, ItemDone]
    assert closing(*OPENING, TextDone(t=1), PartDone(t=1), ItemDone(t=1)) == []


def test_nothing_may_follow_a_terminal_event() -> None:
    with pytest.raises(BadEntry):
        transcript_of(log_of(FENCE, *OPENING, Completed(t=1, usage=Usage()), Completed(t=1, usage=Usage())))


def test_an_empty_log_is_an_empty_transcript() -> None:
    assert Transcript().text == ""
    assert not Transcript().has_output


@pytest.mark.parametrize("entry", log_of(FENCE, *OPENING, Text(t=1, delta='é"\\\n🙂', tokens=(1,))))
def test_events_survive_encoding_on_one_line(entry: Entry) -> None:
    raw = encode_event(entry.event)
    assert b"\n" not in raw
    assert raw.startswith(b'{"type":"')
    assert decode_event(raw) == entry.event


def test_unknown_fields_are_ignored_and_nonsense_is_refused() -> None:
    assert decode_event(b'{"type":"text","t":1,"delta":"x","new":[1]}') == Text(t=1, delta="x")
    for raw in (b"", b"{", b'{"type":"text"}', b'{"type":"unheard-of","t":1}', b"\xff"):
        with pytest.raises(BadEntry):
            decode_event(raw)


@pytest.mark.parametrize("text", ["0-1", "1-0", "12-345", f"1-{2**63 - 1}"])
def test_entry_ids_are_read_as_they_are_written(text: str) -> None:
    assert str(parse_entry_id(text)) == text


@pytest.mark.parametrize(
    "text", ["", "-", "1", "1-", "-1", "a-1", "1-1-1", "01-1", "+1-1", " 1-1", "1-٣", f"1-{2**63}", "$"]
)
def test_anything_else_is_no_entry_id(text: str) -> None:
    assert parse_entry_id(text) is None
