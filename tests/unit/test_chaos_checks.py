"""The judge of the chaos suite sees a hole, a repeat, a wrong order and a second end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.chaos.asks import SYNTHETIC, Ask, Kind, synthetic_text
from benchmarks.chaos.checks import Fate, archived_frames, check_archived, check_seen
from benchmarks.chaos.record import Record
from schemas.archived import StoredEntry
from schemas.events import (
    Accepted,
    Entry,
    EntryId,
    Fence,
    Incomplete,
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
    encode_event,
)
from schemas.ids import ResponseId, new_response_id
from schemas.requests import Format, GenerationRequest, Message

TOKENS = 20
Change = Callable[[list[bytes]], list[bytes]]


def log_of(response_id: ResponseId, format: Format, *, takeover_at: int) -> list[Entry]:
    """A whole log, whose second attempt begins behind so many tokens."""
    request = GenerationRequest(
        model=SYNTHETIC, messages=[Message("user", "hi")], max_output_tokens=TOKENS, include_usage=True
    )
    accepted = Accepted(t=0, id=response_id, tenant="t", format=format, at_ms=1_700_000_000_000, request=request)
    events: list[LogEvent] = [accepted, Queued(t=0, lane="interactive"), InProgress(t=1), ItemAdded(t=1)]
    events += [PartAdded(t=1), *(Text(t=2, delta=f" t{i}", tokens=(i,)) for i in range(TOKENS))]
    events += [TextDone(t=3), PartDone(t=3), ItemDone(t=3, status="incomplete")]
    events.append(Incomplete(t=3, usage=Usage(input_tokens=1, output_tokens=TOKENS)))
    second = 5 + takeover_at
    attempts = [0, 0, *([1] * (second - 2)), *([2] * (len(events) - second))]
    numbered = zip(attempts, events, strict=True)
    entries = [Entry(EntryId(attempt, i + 1), event) for i, (attempt, event) in enumerate(numbered)]
    for attempt, at in ((2, second), (1, 2)):
        entries.insert(at, Entry(EntryId(attempt, 0), Fence(t=1, consumer=f"w-{attempt}", boot="b")))
    return entries


class Case:
    """A response, its archived log, and a client that saw its events after a change."""

    def __init__(self, kind: Kind) -> None:
        self.id = new_response_id()
        self.ask = Ask(kind, SYNTHETIC, "hi", TOKENS, synthetic_text(TOKENS), TOKENS)
        self.entries = log_of(self.id, "chat" if kind.is_chat else "responses", takeover_at=7)
        tail = [entry for entry in self.entries if not entry.id.is_fence]
        self.frames = archived_frames(tail, is_chat=kind.is_chat)

    def seen(self, change: Change) -> Record:
        record = Record(self.ask, self.id)
        for frame in change(list(self.frames)):
            record.frames.feed(frame + b"\n\n")
        record.frames.feed(b"data: [DONE]\n\n")
        record.end()
        return record

    def fates(self, change: Change) -> set[Fate]:
        return {problem.fate for problem in check_seen(self.seen(change))}


@pytest.fixture(params=[Kind.RESPONSES, Kind.CHAT])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_what_is_right_has_no_problem(case: Case) -> None:
    record = case.seen(lambda frames: frames)
    stored = [StoredEntry(str(entry.id), encode_event(entry.event).decode()) for entry in case.entries]
    assert check_seen(record) == []
    assert check_archived(record, stored, {case.id: (1, TOKENS)}) == []


@pytest.mark.parametrize("at", [8, 12, 18])
def test_a_hole_a_repeat_and_a_swap_are_named(case: Case, at: int) -> None:
    assert case.fates(lambda f: f[:at] + f[at + 1 :]) >= {Fate.LOST}
    assert case.fates(lambda f: f[: at + 1] + f[at:]) >= {Fate.DUPLICATED}
    assert case.fates(lambda f: [*f[:at], f[at + 1], f[at], *f[at + 2 :]]) >= {Fate.OUT_OF_ORDER}


def test_no_end_and_two_ends_are_named(case: Case) -> None:
    assert case.fates(lambda f: f[: len(f) // 2]) >= {Fate.LOST}
    assert case.fates(lambda f: f + f[-2:]) >= {Fate.DUPLICATED}


def test_usage_counted_twice_is_wrong(case: Case) -> None:
    twice = {b'"output_tokens":20': b'"output_tokens":40', b'"completion_tokens":20': b'"completion_tokens":40'}

    def change(frames: list[bytes]) -> list[bytes]:
        for right, wrong in twice.items():
            frames = [frame.replace(right, wrong) for frame in frames]
        return frames

    assert case.fates(change) == {Fate.WRONG}


def test_an_archive_that_differs_is_wrong(case: Case) -> None:
    stored = [StoredEntry(str(e.id), encode_event(e.event).decode()) for e in case.entries]
    changed = [StoredEntry(e.id, e.event.replace('" t9"', '" x9"')) for e in stored]
    record = case.seen(lambda frames: frames)
    fates = {problem.fate for problem in check_archived(record, changed, {case.id: (1, TOKENS)})}
    assert fates == {Fate.WRONG}
    assert check_archived(record, stored, {}) != []


def test_a_stream_that_diverged_is_told_apart(case: Case) -> None:
    error = b'event: error\ndata: {"type":"error","error":{"code":"stream_diverged","message":"m"}}'
    assert case.fates(lambda frames: [*frames[:9], error]) == {Fate.DIVERGED}
