"""The archiver among rows that the archive refuses, over SQLite and MariaDB."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from archive.store import Archive
from consumers.archiver import NOT_ARCHIVABLE
from responses.accept import Prepared
from responses.requeue import Requeuer
from schemas.events import encode_event
from schemas.ids import ResponseId, new_response_id
from schemas.models import Models
from schemas.requests import FinishedEntry
from streams.connect import Broker
from streams.dead import DeadLetters, StoredLetter
from streams.finished import FinishedStream
from streams.keys import FINISHED, log_key, open_key
from tests.contract.test_archive import archive, url
from tests.contract.test_refused_rows import refusing_trigger, run
from tests.integration.rig import Rig
from tests.integration.test_archiver import archiving, nothing_is_left
from tests.waiting import until

__all__ = ["archive", "url"]  # fixtures


@pytest.fixture(params=["valkey"])
def kind(request: pytest.FixtureRequest) -> str:
    """One broker: the difference here is the database."""
    return str(request.param)


@pytest.fixture
async def picky(url: str) -> AsyncIterator[str]:
    """The database refuses rows whose tenant begins with `bad`."""
    await run(url, refusing_trigger(url))
    yield url
    await run(url, "DROP TRIGGER IF EXISTS no")


async def finish(rig: Rig, *tenants: str) -> list[Prepared]:
    """One finished response for each, in the order in which an archiver reads them."""
    asked = []
    for tenant in tenants:
        prepared = rig.prepare(2)
        prepared.accepted = msgspec.structs.replace(prepared.accepted, tenant=tenant)
        await rig.intake.accept(prepared)
        asked.append(prepared)
    async with rig.worker():
        await rig.idle()
    return asked


async def has_letters(broker: Broker, count: int) -> list[StoredLetter]:
    found = await DeadLetters(broker.commands).newest(100)
    return found if len(found) == count else []


async def is_open(broker: Broker, response_id: ResponseId) -> bool:
    return await broker.commands.zscore(open_key(), response_id) is not None


async def test_refused_rows_become_dead_letters_and_the_rest_goes_in(
    broker: Broker, archive: Archive, picky: str
) -> None:
    rig = Rig(broker)
    tenants = ["good", "bad-1", "good", "good", "bad-2", "good", "good", "good", "good", "bad-3"]
    asked = await finish(rig, *tenants)
    bad = {prepared.id for prepared in asked if prepared.accepted.tenant != "good"}
    async with archiving(broker, archive):
        await until(lambda: nothing_is_left(broker), what="an empty stream")
    letters = await DeadLetters(broker.commands).newest(100)
    assert {stored.finished().id for stored in letters} == bad
    assert {(stored.letter.stream, stored.letter.reason) for stored in letters} == {(FINISHED, NOT_ARCHIVABLE)}
    assert all("not this one" in stored.letter.error for stored in letters)
    for prepared in asked:
        assert await archive.exists(prepared.id) == (prepared.id not in bad)
        assert await is_open(broker, prepared.id) == (prepared.id in bad)
        assert (await broker.commands.ttl(log_key(prepared.id)) == -1) == (prepared.id in bad)


async def test_a_refused_row_that_is_sent_again_once_the_cause_is_gone_is_archived(
    broker: Broker, archive: Archive, picky: str
) -> None:
    rig = Rig(broker)
    [good, bad] = await finish(rig, "good", "bad")
    letters = DeadLetters(broker.commands)
    requeuer = Requeuer(
        letters,
        rig.intake,
        Models([rig.model]),
        rig.logs,
        FinishedStream(broker.commands),
        rig.histories(),
        rig.reader(),
    )
    async with archiving(broker, archive):
        [first] = await until(lambda: has_letters(broker, 1), what="a dead letter")
        assert (await requeuer.requeue(first)).response_id == bad.id

        async def another_letter() -> StoredLetter | None:
            found = await letters.newest(10)
            return found[0] if found and found[0].id != first.id else None

        await finish(rig, "good")
        second = await until(another_letter, what="the letter of the second refusal")
        assert await letters.count() == 1, "one letter for a response"
        await run(picky, "DROP TRIGGER no")
        await requeuer.requeue(second)
        await until(lambda: archive.exists(bad.id), what="the row")
        await until(lambda: nothing_is_left(broker))
    assert await letters.count() == 0
    assert await archive.read_log(bad.id) is not None
    assert not await is_open(broker, bad.id)
    assert await archive.exists(good.id)


async def test_what_a_sweep_sends_again_keeps_its_letter_and_waits_for_no_other_row(
    broker: Broker, archive: Archive, picky: str
) -> None:
    rig = Rig(broker)
    [_, *bad] = await finish(rig, "good", "bad-1", "bad-2")
    finished = FinishedStream(broker.commands)
    async with archiving(broker, archive):
        before = await until(lambda: has_letters(broker, 2), what="two dead letters")
        await until(lambda: nothing_is_left(broker))
    async with archiving(broker, archive):  # which knows nothing of the first refusal
        for prepared in bad * 2:
            await finished.send(FinishedEntry(id=prepared.id, status="incomplete"))
        await until(lambda: nothing_is_left(broker), what="an empty stream")
        assert await DeadLetters(broker.commands).newest(10) == before
        await run(picky, "DROP TRIGGER no")
        await finished.send(FinishedEntry(id=bad[0].id, status="incomplete"))
        await until(lambda: archive.exists(bad[0].id), what="the row")


async def test_a_row_alone_is_put_aside_after_some_tries(broker: Broker, archive: Archive, picky: str) -> None:
    rig = Rig(broker)
    [bad] = await finish(rig, "bad")
    async with archiving(broker, archive):
        [stored] = await until(lambda: has_letters(broker, 1), what="a dead letter")
        await until(lambda: nothing_is_left(broker))
    assert stored.finished().id == bad.id


async def test_a_database_that_refuses_everything_costs_nothing(
    broker: Broker, archive: Archive, picky: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(broker)
    asked = await finish(rig, *(f"bad-{i}" for i in range(6)))

    def refused(count: int) -> bool:
        return sum("row_refused_for_now" in record.message for record in caplog.records) >= count

    async with archiving(broker, archive):
        await until(lambda: refused(5 * len(asked)), what="five passes")
        asked += await finish(rig, "bad-late")
        await until(lambda: refused(7 * len(asked)), what="two more")
        assert await DeadLetters(broker.commands).count() == 0
        assert await FinishedStream(broker.commands).lag("archiver") == len(asked)
        await run(picky, "DROP TRIGGER no")
        await until(lambda: nothing_is_left(broker), what="an empty stream")
    assert all([await archive.exists(prepared.id) for prepared in asked])
    assert await DeadLetters(broker.commands).count() == 0


async def test_one_row_that_goes_in_tells_whose_fault_the_others_were(
    broker: Broker, archive: Archive, picky: str
) -> None:
    rig = Rig(broker)
    bad = await finish(rig, "bad-1", "bad-2")
    async with archiving(broker, archive):
        await until(lambda: is_held(broker, 2), what="two rows that were read")
        [good] = await finish(rig, "good")
        letters = await until(lambda: has_letters(broker, 2), what="two dead letters")
        await until(lambda: nothing_is_left(broker))
    assert {stored.finished().id for stored in letters} == {prepared.id for prepared in bad}
    assert await archive.exists(good.id)


async def is_held(broker: Broker, count: int) -> bool:
    groups = await broker.commands.xinfo_groups(FINISHED)
    return bool(groups) and groups[0]["pending"] == count


async def test_what_names_no_response_or_a_damaged_log_holds_nobody_up(broker: Broker, archive: Archive) -> None:
    rig = Rig(broker)
    finished = FinishedStream(broker.commands)
    damaged, unfinished = rig.prepare(), rig.prepare()
    for prepared in (damaged, unfinished):
        await rig.logs.accept(prepared.id, prepared.accepted.at_ms, (prepared.accepted, prepared.queued))
    await broker.commands.xadd(log_key(damaged.id), {"event": b"\xff"}, id="1-0")
    for raw in (b"{", b'{"id":"resp_zz","status":"x"}', b'{"id":"\xff"}', b"[" * 100_000):
        await broker.commands.xadd(FINISHED, {"finished": raw})
    for response_id in (damaged.id, unfinished.id, new_response_id()):
        await finished.send(FinishedEntry(id=response_id, status="completed"))
    [good] = await finish(rig, "good")
    async with archiving(broker, archive):
        [stored] = await until(lambda: has_letters(broker, 1), what="a dead letter")
        await until(lambda: archive.exists(good.id))
        assert stored.finished().id == damaged.id
        assert "does not parse" in stored.letter.error
        # only what has no end yet is still held: somebody will put the end back
        await until(lambda: is_held(broker, 1))
    assert encode_event(unfinished.queued) in [raw for _, raw in await rig.logs.read_raw(unfinished.id)]
