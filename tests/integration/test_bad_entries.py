"""A worker among entries and logs that do not parse."""

from __future__ import annotations

import msgspec
import pytest

from responses.accept import Prepared
from schemas.events import Failed
from schemas.ids import ResponseId
from streams.connect import Broker
from streams.dead import DeadLetters, StoredLetter
from streams.finished import FinishedStream
from streams.keys import log_key, requests_key
from tests.integration.rig import Rig, text_of
from tests.waiting import until


async def letters_of(broker: Broker, count: int) -> list[StoredLetter]:
    async def find() -> list[StoredLetter]:
        found = await DeadLetters(broker.commands).newest(100)
        return found if len(found) >= count else []

    return await until(find, what=f"{count} dead letters")


async def accept_without_queueing(rig: Rig) -> Prepared:
    prepared = rig.prepare()
    await rig.logs.accept(prepared.id, prepared.accepted.at_ms, (prepared.accepted, prepared.queued))
    return prepared


def damaged(response_id: ResponseId) -> bytes:
    return b'{"id":"%s","tenant":"t","accepted_at_ms":"yesterday","request":{}}' % response_id.encode()


@pytest.mark.parametrize("lane", ["interactive", "batch"])
async def test_the_response_of_an_entry_that_does_not_parse_fails_and_the_entry_is_kept(
    broker: Broker, lane: str
) -> None:
    rig = Rig(broker)
    prepared = await accept_without_queueing(rig)
    entry_id = await broker.commands.xadd(
        f"oc:requests:{{synthetic:{lane}}}", {"request": damaged(prepared.id), "by": b"somebody"}
    )
    async with rig.worker():
        transcript = await rig.ended(prepared.id)
        [stored] = await letters_of(broker, 1)
        await until(lambda: is_empty(rig), what="an empty queue")
    assert isinstance(transcript.terminal, Failed)
    assert transcript.terminal.error.code == "bad_request_entry"
    assert (stored.letter.reason, stored.letter.entry_id) == ("bad_request_entry", entry_id.decode())
    assert "accepted_at_ms" in stored.letter.error
    assert msgspec.json.decode(stored.letter.body) == {"request": damaged(prepared.id).decode(), "by": "somebody"}
    assert stored.salvaged.response_id == prepared.id
    assert await FinishedStream(broker.commands).added() == 1


async def is_empty(rig: Rig) -> bool:
    return not any([await rig.queue.depth("interactive"), await rig.queue.depth("batch")])


BAD = {
    "no json": {"request": b"{nonsense"},
    "empty": {"request": b""},
    "no field": {"x": b"\x00\xff"},
    "no utf-8": {"request": b'{"id":"\xff"}'},
    "too deep": {"request": b'{"zz":' + b"[" * 100_000},
    "array": {"request": b"[" * 100_000},
    "numbers": {"request": b'{"id":1e400,"tenant":' + b"9" * 5000 + b"}"},
    "wrong id": {
        "request": b'{"id":"resp_zz","tenant":"t","accepted_at_ms":1,"request":{"model":"synthetic","messages":[]}}'
    },
}


async def test_no_entry_blocks_the_stream_or_kills_the_worker(broker: Broker) -> None:
    rig = Rig(broker)
    for fields in BAD.values():
        await broker.commands.xadd(requests_key("synthetic", "interactive"), fields)
    async with rig.worker() as worker:
        name = worker.consumer
        letters = await letters_of(broker, len(BAD))
        assert (await rig.ended((await rig.ask(5)).id)).text == text_of(5)
        await rig.idle()
        assert worker.consumer == name
    assert len(letters) == len(BAD)
    assert {stored.letter.reason for stored in letters} == {"bad_request_entry"}
    assert {stored.salvaged.response_id for stored in letters} == {None}


async def test_an_id_is_found_also_where_the_text_around_it_is_damaged(broker: Broker) -> None:
    rig = Rig(broker)
    prepared = await accept_without_queueing(rig)
    raw = b'{"id":"%s","tenant":"\xff\xfe"}' % prepared.id.encode()
    await broker.commands.xadd(requests_key("synthetic", "interactive"), {"request": raw})
    async with rig.worker():
        assert isinstance((await rig.ended(prepared.id)).terminal, Failed)


async def test_a_response_is_ended_once_however_many_damaged_entries_name_it(broker: Broker) -> None:
    rig = Rig(broker)
    prepared = await accept_without_queueing(rig)
    for _ in range(5):
        await broker.commands.xadd(requests_key("synthetic", "interactive"), {"request": damaged(prepared.id)})
    async with rig.worker("w-1"), rig.worker("w-2"):
        await letters_of(broker, 5)
    raw = await rig.logs.read_raw(prepared.id)
    assert [event for _, event in raw if b'"failed"' in event] == [raw[-1][1]]


async def test_what_has_ended_stays_as_it_ended(broker: Broker) -> None:
    rig = Rig(broker)
    async with rig.worker():
        prepared = await rig.ask(5)
        await rig.ended(prepared.id)
        await rig.idle()
        before = await rig.logs.read_raw(prepared.id)
        await broker.commands.xadd(requests_key("synthetic", "interactive"), {"request": damaged(prepared.id)})
        await letters_of(broker, 1)
    assert await rig.logs.read_raw(prepared.id) == before


async def test_a_damaged_entry_of_a_response_without_a_log_makes_no_ghost(broker: Broker) -> None:
    rig = Rig(broker)
    prepared = rig.prepare()
    async with rig.worker():
        await broker.commands.xadd(requests_key("synthetic", "interactive"), {"request": damaged(prepared.id)})
        await letters_of(broker, 1)
    assert not await rig.logs.exists(prepared.id)


@pytest.mark.parametrize("event", [{"event": b"\xff"}, {"event": b'{"type":"later"}'}, {"x": b"y"}], ids=range(3))
async def test_a_log_that_does_not_parse_is_told_apart_from_none(broker: Broker, event: dict[str, bytes]) -> None:
    rig = Rig(broker)
    prepared = await accept_without_queueing(rig)
    await broker.commands.xadd(log_key(prepared.id), event, id="0-3")
    async with rig.worker():
        await rig.queue.send("interactive", prepared.request_entry())
        [stored] = await letters_of(broker, 1)
        await rig.idle()
    assert stored.letter.reason == "log_unreadable"
    assert stored.request() == prepared.request_entry()
