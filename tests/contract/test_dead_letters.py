"""What `oc:dead` promises, over Valkey 9.1, Debian's Redis 7, Sentinel and a Cluster."""

from __future__ import annotations

import msgspec
import pytest

from schemas.errors import BadEntry, LetterNotFound
from schemas.ids import new_response_id
from schemas.requests import GenerationRequest, Message, RequestEntry
from streams.connect import Broker
from streams.dead import LETTER_UNREADABLE, DeadLetters
from streams.keys import DEAD, parse_requests_key, requests_key
from streams.queue import RequestQueue


@pytest.fixture(params=["valkey", "redis", "sentinel", "cluster"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def request_entry() -> RequestEntry:
    request = GenerationRequest(model="m", messages=[Message("user", 'a "quoted" é🙂 \\xff')])
    return RequestEntry(id=new_response_id(), tenant="a", accepted_at_ms=1, request=request, format="chat")


async def bury(broker: Broker, *entries: dict[str, bytes]) -> None:
    queue = RequestQueue(broker.commands, "m")
    await queue.ensure_groups()
    for fields in entries:
        await broker.commands.xadd(requests_key("m", "interactive"), fields)
    for delivery in await queue.read("w", "interactive", len(entries)):
        await queue.bury(delivery, "a_reason", 2, error="in words")
    assert await queue.depth("interactive") == 0


async def test_a_request_is_read_back_exactly_as_it_was_queued(broker: Broker) -> None:
    entry = request_entry()
    raw = msgspec.json.encode(entry)
    await bury(broker, {"request": raw}, {"request": raw, "later": b"x"})
    more, one = await DeadLetters(broker.commands).newest(10)
    assert (one.letter.stream, one.letter.reason, one.letter.error) == (
        "oc:requests:{m:interactive}",
        "a_reason",
        "in words",
    )
    assert (one.letter.attempts, one.letter.body) == (2, raw.decode())
    assert one.request() == more.request() == entry
    assert one.salvaged.response_id == more.salvaged.response_id == entry.id
    assert msgspec.json.decode(more.letter.body) == {"request": raw.decode(), "later": "x"}


async def test_an_entry_that_does_not_parse_is_kept_whole(broker: Broker) -> None:
    await bury(broker, {"request": b"{nonsense"}, {"other": b"\xff\x00"}, {"request": b"", "x": b"y"})
    both, other, nonsense = await DeadLetters(broker.commands).newest(10)
    assert nonsense.letter.body == "{nonsense"
    assert msgspec.json.decode(other.letter.body) == {"other": "\\xff\x00"}
    assert msgspec.json.decode(both.letter.body) == {"request": "", "x": "y"}
    for stored in (both, other, nonsense):
        assert stored.salvaged.response_id is None
        with pytest.raises(BadEntry, match=stored.id):
            stored.request()


async def test_a_letter_is_found_by_its_id_and_removed(broker: Broker) -> None:
    letters = DeadLetters(broker.commands)
    await bury(broker, {"request": b"1"}, {"request": b"2"})
    two, one = await letters.newest(10)
    assert await letters.find(one.id) == one
    assert one.at_ms > 1_600_000_000_000
    await letters.remove(one.id)
    await letters.remove(one.id)
    assert await letters.newest(10) == [two]
    for unknown in (one.id, "1-1", "", "nonsense", "1", "-", "+", f"{1 << 65}-0", "1-0\n"):
        with pytest.raises(LetterNotFound):
            await letters.find(unknown)


async def test_all_are_those_that_were_there_also_while_they_are_removed(broker: Broker) -> None:
    letters = DeadLetters(broker.commands)
    await bury(broker, *({"request": b"%d" % i} for i in range(250)))
    found = []
    async for stored in letters.all():
        found.append(int(stored.letter.body))
        await letters.remove(stored.id)
        await letters.put(msgspec.structs.replace(stored.letter, body="later"))
    assert found == list(range(250))
    assert await letters.count() == 250
    assert {stored.letter.body for stored in await letters.newest(1000)} == {"later"}


async def test_a_letter_that_does_not_parse_itself_is_shown_as_it_stands(broker: Broker) -> None:
    await broker.commands.xadd(DEAD, {"letter": b"{", "x": b"\xff"})
    await broker.commands.xadd(DEAD, {"letter": b'{"reason": 5'})
    for stored in await DeadLetters(broker.commands).newest(10):
        assert stored.letter.reason == LETTER_UNREADABLE
        assert stored.letter.body
        with pytest.raises(BadEntry):
            stored.request()


@pytest.mark.parametrize("model", ["m", "a:b}{c d/é%"])
def test_the_key_of_a_request_stream_tells_model_and_lane(model: str) -> None:
    assert parse_requests_key(requests_key(model, "interactive")) == (model, "interactive")
    assert parse_requests_key(requests_key(model, "batch")) == (model, "batch")
    assert parse_requests_key("oc:finished") is None
    assert parse_requests_key("oc:requests:{m:other}") is None
