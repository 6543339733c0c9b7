"""What a failover took from a log whose worker died too is put back by the gateway that has shown it."""

from __future__ import annotations

import pytest

from archive.connect import open_archive
from ingress.tails import Tail, Tails
from responses.accept import Prepared
from responses.end import Ender, cancellation
from responses.restore import Restorer
from responses.rows import archived_response
from schemas.events import Incomplete
from schemas.ids import ResponseId
from streams.connect import Broker
from streams.finished import FinishedStream
from streams.keys import bus_key, log_key, open_key, requests_key
from tests.integration.rig import Rig, text_of
from tests.integration.test_tails import accept, complete, gateway, text, url  # noqa: F401 - a fixture
from tests.integration.test_worker import write_as
from tests.waiting import until

SHOWN = 10
REQUESTS = requests_key("synthetic", "interactive")


async def show(rig: Rig, tails: Tails, broker: Broker, *, lose_fence: bool = False) -> tuple[Prepared, Tail, bytes]:
    """A tail that shows ten tokens of a worker that is dead by now, and the log as a replica had it before."""
    await rig.queue.ensure_groups()
    prepared = rig.prepare(30)
    tail = tails.adopt(prepared.id, prepared.entries)
    await rig.logs.accept(prepared.id, prepared.accepted.at_ms, (prepared.accepted, prepared.queued))
    await rig.queue.send("interactive", prepared.request_entry())
    await rig.queue.read("dead-1", "interactive", 1)
    old = await broker.commands.dump(log_key(prepared.id))
    await write_as("dead-1", broker, prepared.id, text_of(SHOWN))
    await until(lambda: text(tail) == text_of(SHOWN), what="the tail to show them")
    if not lose_fence:
        old = await after_five_tokens(broker, prepared.id)
    return prepared, tail, old


async def after_five_tokens(broker: Broker, response_id: ResponseId) -> bytes:
    """The log without its newest five entries."""
    key, copy = log_key(response_id), f"{log_key(response_id)}:copy"
    for entry_id, fields in (await broker.commands.xrange(key))[:-5]:
        await broker.commands.xadd(copy, fields, id=entry_id)
    dump: bytes = await broker.commands.dump(copy)
    await broker.commands.delete(copy)
    return dump


async def fail_over(broker: Broker, response_id: ResponseId, old: bytes) -> None:
    """The new primary has the log as it was."""
    await broker.commands.restore(log_key(response_id), 0, old, replace=True)
    await broker.commands.delete(bus_key())


@pytest.fixture(params=["valkey", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("lose_fence", [False, True])
async def test_lost_entries_are_put_back_and_another_worker_goes_on_behind_them(
    broker: Broker,
    url: str,  # noqa: F811
    lose_fence: bool,
) -> None:
    rig = Rig(broker)
    async with gateway(broker, url) as tails:
        prepared, tail, old = await show(rig, tails, broker, lose_fence=lose_fence)
        before = await rig.logs.read_raw(prepared.id)
        await fail_over(broker, prepared.id, old)
        await until(lambda: is_again(rig, prepared.id, before), what="the entries to be put back")
        async with rig.worker():
            await complete(tail)
        assert text(tail) == text_of(30)
        assert (await rig.transcript(prepared.id)).text == text_of(30)


async def is_again(rig: Rig, response_id: ResponseId, before: list[tuple[str, bytes]]) -> bool:
    return await rig.logs.read_raw(response_id) == before


async def test_a_response_that_was_lost_whole_is_there_again_and_is_generated(
    broker: Broker,
    url: str,  # noqa: F811
) -> None:
    rig = Rig(broker)
    async with gateway(broker, url) as tails:
        prepared = rig.prepare(20)
        tail = await accept(rig, tails, prepared)
        await broker.commands.delete(log_key(prepared.id), open_key(), REQUESTS, bus_key())
        async with rig.worker():
            await complete(tail)
        assert text(tail) == text_of(20)
        assert await broker.commands.zscore(open_key(), prepared.id) == prepared.accepted.at_ms


async def test_what_another_attempt_has_taken_is_not_put_back_and_the_stream_says_that_it_diverged(
    broker: Broker,
    url: str,  # noqa: F811
) -> None:
    rig = Rig(broker)
    async with gateway(broker, url) as tails:
        prepared, tail, old = await show(rig, tails, broker)
        tail.is_accepted = False  # this gateway is late
        await fail_over(broker, prepared.id, old)
        async with rig.worker():
            await rig.ended(prepared.id)
        tail.is_accepted = True
        await until(lambda: tail.error, what="the tail to notice")
        assert tail.error is not None
        assert tail.error.code == "stream_diverged"
        assert (await rig.transcript(prepared.id)).text == text_of(30)


async def test_a_lost_end_is_put_back_sealed_and_sent_to_the_archiver_again(
    broker: Broker,
    url: str,  # noqa: F811
) -> None:
    rig = Rig(broker)
    finished = FinishedStream(broker.commands)
    async with rig.worker():
        prepared = await rig.ask(20)
        await rig.ended(prepared.id)
        await rig.idle()
    shown = await rig.logs.read(prepared.id)
    assert isinstance(shown[-1].event, Incomplete)
    await fail_over(broker, prepared.id, await after_five_tokens(broker, prepared.id))
    added = await finished.added()
    async with open_archive(url) as archive:
        restorer = Restorer(rig.logs, archive, finished, lambda _: rig.queue, rig.histories(archive))
        assert await restorer.restore(shown) == 5
        assert await restorer.restore(shown) == 0
    assert await rig.logs.read(prepared.id) == shown
    assert (await rig.logs.last_ids([prepared.id]))[0] == shown[-1].id
    assert await finished.added() == added + 1
    info = await broker.commands.xinfo_stream(log_key(prepared.id))
    assert info["last-generated-id"] == b"18446744073709551615-0"


async def test_what_was_archived_or_deleted_is_not_brought_back(
    broker: Broker,
    url: str,  # noqa: F811
) -> None:
    rig = Rig(broker)
    prepared = await rig.ask(20)
    ender = Ender(rig.logs, FinishedStream(broker.commands), name="g", boot="g")
    await ender.end(prepared.id, cancellation())
    shown = await rig.logs.read(prepared.id)
    async with open_archive(url) as archive:
        await archive.insert([archived_response(prepared.id, await rig.logs.read_raw(prepared.id))])
        await rig.logs.remove(prepared.id)
        finished = FinishedStream(broker.commands)
        restorer = Restorer(rig.logs, archive, finished, lambda _: rig.queue, rig.histories(archive))
        assert await restorer.restore(shown) == 0
    assert not await rig.logs.exists(prepared.id)
