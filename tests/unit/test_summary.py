"""A summary says of every log what its transcript says, errors included."""

from __future__ import annotations

import random

import pytest

from formats.summary import summary_of
from formats.transcript import transcript_of
from schemas.errors import BadEntry
from schemas.events import (
    Accepted,
    Arguments,
    Cancelled,
    Completed,
    Embedding,
    Fence,
    InProgress,
    ItemAdded,
    LogEvent,
    Queued,
    Reasoning,
    Text,
    Usage,
    decode_events,
    encode_event,
)
from schemas.ids import new_response_id
from schemas.requests import GenerationRequest
from streams.logs import decode_entry

ACCEPTED = Accepted(t=0, id=new_response_id(), tenant="a", format="chat", at_ms=1, request=GenerationRequest(model="m"))
Log = list[tuple[str, LogEvent]]


def a_log() -> Log:
    """Two attempts, with output of every kind."""
    return [
        ("0-1", ACCEPTED),
        ("0-2", Queued(t=0, lane="interactive")),
        ("1-0", Fence(t=1, consumer="a", boot="b")),
        ("1-3", InProgress(t=2, engine="synthetic")),
        ("1-4", ItemAdded(t=3, item="reasoning")),
        ("1-5", Reasoning(t=4, delta="hm")),
        ("1-6", Text(t=5, delta="x")),
        ("2-0", Fence(t=6, consumer="b", boot="c", released=True)),
        ("3-0", Fence(t=7, consumer="b", boot="d")),
        ("3-7", Text(t=8, delta="y")),
        ("3-8", ItemAdded(t=9, item="function_call", name="f")),
        ("3-9", Arguments(t=10, delta="{}")),
        ("3-10", Embedding(t=10, index=0, vector="")),
        ("3-11", Completed(t=11, usage=Usage(output_tokens=2))),
    ]


def a_fork() -> Log:
    """The same, the first attempt copied."""
    log = [(entry_id, event) for entry_id, event in a_log() if entry_id not in ("1-0", "2-0")]
    return [(f"0-{i + 1}" if i < 6 else entry_id, event) for i, (entry_id, event) in enumerate(log)]


def of_transcript(log: Log) -> object:
    try:
        found = transcript_of(decode_entry(entry_id, encode_event(event)) for entry_id, event in log)
    except BadEntry as exc:
        return str(exc)
    return found.accepted, found.terminal, found.status, found.attempts, found.calls, found.first_text_ms


def of_summary(log: Log) -> object:
    try:
        found = summary_of([entry_id for entry_id, _ in log], [event for _, event in log])
    except BadEntry as exc:
        return str(exc)
    return found.accepted, found.terminal, found.status, found.attempts, found.calls, found.first_text_ms


@pytest.mark.parametrize("log", [a_log(), a_fork()], ids=["log", "fork"])
def test_they_agree_on_a_good_log_and_on_each_of_its_beginnings(log: Log) -> None:
    for length in range(len(log) + 1):
        assert of_summary(log[:length]) == of_transcript(log[:length])
    assert summary_of([i for i, _ in log], [e for _, e in log]).engine == "synthetic"


def test_what_a_fork_copied_is_not_its_first_text() -> None:
    assert of_transcript(a_fork())[-1] == of_summary(a_fork())[-1] == 8  # type: ignore[index]


def test_they_agree_on_logs_with_anything_wrong() -> None:
    source = random.Random(1)
    ids = ["", "x", "1-", "01-3", "1-3", "2-7", "3-0", "3-7", "9-0", "9-12", "0-1"]
    events = [Cancelled(t=1), InProgress(t=1), Fence(t=1, consumer="c", boot="b"), Text(t=1, delta="")]
    outcomes = set()
    for _ in range(3000):
        log = a_log()
        for _ in range(source.randrange(1, 3)):
            place = source.randrange(len(log))
            entry_id, event = log[place]
            match source.randrange(5):
                case 0:
                    del log[place]
                case 1:
                    log.insert(place, log[source.randrange(len(log))])
                case 2:
                    log[place] = (source.choice(ids), event)
                case 3:
                    log[place] = (entry_id, source.choice(events))
                case _:
                    log.append((f"3-{source.randrange(11, 14)}", source.choice(events)))
        outcomes.add(type(of_transcript(log)))
        assert of_summary(log) == of_transcript(log), log
    assert outcomes == {str, tuple}


def test_many_events_are_decoded_as_one_by_one() -> None:
    events = [event for _, event in a_log()]
    assert decode_events([encode_event(event) for event in events]) == events
    assert decode_events([]) == []


@pytest.mark.parametrize("bad", [b"", b"{", b"{}", b'{"type":"nonsense","t":1}', b'"\xff"', b"[1,2]"])
def test_one_event_that_does_not_parse_is_named(bad: bytes) -> None:
    good = encode_event(Text(t=1, delta="x"))
    with pytest.raises(BadEntry, match="log event does not parse"):
        decode_events([good, bad, good])
    with pytest.raises(BadEntry, match="log event does not parse"):
        decode_events([good + b"," + good])
