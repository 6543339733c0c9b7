"""A tail tells a log that is another from one that says the same again."""

from __future__ import annotations

from ingress.tails import Tail
from schemas.errors import StreamDiverged
from schemas.events import Accepted, Entry, EntryId, Fence, LogEvent, Queued, Text
from schemas.ids import new_response_id
from schemas.requests import GenerationRequest, Message


def entry(attempt: int, number: int, event: LogEvent) -> Entry:
    return Entry(EntryId(attempt, number), event)


def tail() -> Tail:
    response_id = new_response_id()
    request = GenerationRequest(model="m", messages=[Message("user", "hi")])
    accepted = Accepted(t=0, id=response_id, tenant="a", format="chat", at_ms=1, request=request)
    first = [entry(0, 1, accepted), entry(0, 2, Queued(t=0, lane="interactive"))]
    fence = entry(1, 0, Fence(t=1, consumer="w-a", boot="a"))
    return Tail(response_id, [*first, fence, entry(1, 3, Text(t=2, delta="one"))])


def test_a_fence_that_its_worker_wrote_twice_is_no_divergence() -> None:
    shown = tail()
    assert shown.add([entry(1, 0, Fence(t=9, consumer="w-a", boot="a"))])
    assert shown.error is None


def test_a_fence_of_another_under_the_same_number_is_one() -> None:
    shown = tail()
    shown.add([entry(1, 0, Fence(t=1, consumer="w-b", boot="b"))])
    assert isinstance(shown.error, StreamDiverged)


def test_an_event_that_comes_again_is_left_out_and_another_under_its_id_is_a_divergence() -> None:
    shown = tail()
    assert shown.add([entry(1, 3, Text(t=2, delta="one"))])
    assert shown.error is None
    shown.add([entry(1, 3, Text(t=2, delta="eins"))])
    assert isinstance(shown.error, StreamDiverged)


def test_the_log_of_a_tail_has_its_fences_where_they_stood() -> None:
    assert [str(e.id) for e in tail().log] == ["0-1", "0-2", "1-0", "1-3"]
