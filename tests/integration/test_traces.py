"""What is deleted, or was not to be stored, is nowhere: Redis and SQL are searched for its content."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from archive.chat_completions import ChatCompletions
from archive.response_metadata import ResponseMetadata
from archive.store import Archive
from consumers.archiver import Archiver
from engine.base import Delta, Generation, Progress
from responses.accept import Prepared
from responses.delete import Deleter
from responses.end import Ender, cancellation
from responses.requeue import Requeuer
from responses.rows import archived_response
from responses.stored import StoredResponses
from schemas.capabilities import Capabilities
from schemas.errors import BadEntry
from schemas.events import Fence
from schemas.ids import new_response_id
from schemas.models import Models
from schemas.requests import ContinuedMessage, GenerationRequest, Message, RequestEntry
from schemas.settings import Settings
from schemas.tools import Tool
from streams.bus import Bus
from streams.chats import Chats
from streams.connect import Broker
from streams.dead import DeadLetters, StoredLetter, is_unstored
from streams.finished import FinishedStream
from streams.keys import log_key, open_key, requests_key
from tests.contract.test_archive import archive, in_database, row_of, url
from tests.contract.test_archive_retention import add_conversation
from tests.contract.test_refused_rows import refusing_trigger, run
from tests.integration.rig import SETTINGS, Rig
from tests.integration.test_archiver import nothing_is_left
from tests.traces import everything_in_redis, everything_in_sql
from tests.waiting import until

__all__ = ["archive", "url"]  # fixtures

ASKED = "asked-7f3a9c"
ANSWERED = "answered-51b2e8"
SHORT = msgspec.structs.replace(SETTINGS, unstored_ttl_s=2)


@pytest.fixture(params=["valkey"])
def kind(request: pytest.FixtureRequest) -> str:
    """One broker: the difference here is the database."""
    return str(request.param)


class Speaker:
    """Says one word, which no log cuts; then goes on until `may_end`."""

    capabilities = Capabilities(continues=True, tools=True)
    context_length = 0
    capacity = 4

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def start(self, progress: Progress) -> None:
        pass

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        yield Delta(text=ANSWERED, tokens=(1,))
        await self.may_end.wait()
        yield Delta(finish_reason="stop", input_tokens=1, output_tokens=1)

    async def check(self) -> None:
        pass

    async def close(self) -> None:
        pass


def prepare(rig: Rig, *, store: bool = True, tenant: str = "default", conversation: str = "") -> Prepared:
    """A request with its content wherever content can be."""
    request = GenerationRequest(
        model=rig.model.name,
        messages=[Message("user", ASKED)],
        instructions=ASKED,
        metadata={"about": ASKED},
        user=ASKED,
        stop=[ASKED],
        tools=[Tool(name="f", description=ASKED)],
        continued=ContinuedMessage(ASKED, [{"type": "text-delta", "id": "t", "delta": ASKED}]),
        store=store,
        conversation=conversation,
    )
    return Prepared(request, tenant=tenant, format="responses", lane="interactive")


async def ask(rig: Rig, **changes: Any) -> Prepared:
    prepared = prepare(rig, **changes)
    await rig.intake.accept(prepared)
    return prepared


@asynccontextmanager
async def archiving(broker: Broker, archive: Archive, settings: Settings = SHORT) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(Archiver(settings, broker, archive, name="a").run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def is_archived(broker: Broker, archive: Archive, settings: Settings = SHORT) -> None:
    async with archiving(broker, archive, settings):
        await until(lambda: nothing_is_left(broker), what="an empty stream")


def deleter(rig: Rig, archive: Archive) -> Deleter:
    client = rig.broker.commands
    ender = Ender(rig.logs, FinishedStream(client), name="g", boot="g")
    return Deleter(rig.logs, archive, ender, lambda _: rig.queue, DeadLetters(client))


async def traces(broker: Broker, url: str) -> list[str]:
    """The lines that have something of it. What is on the bus is trimmed by time, which is up."""
    await Bus(broker.commands).trim(0)
    everything = f"{await everything_in_redis(broker)}\n{await in_database(url, everything_in_sql)}"
    return [line for line in everything.splitlines() if ASKED in line or ANSWERED in line]


async def nothing_is_found(broker: Broker, url: str) -> None:
    async def is_gone() -> bool:
        return not await traces(broker, url)

    try:
        await until(is_gone, timeout_s=10)
    except AssertionError:
        raise AssertionError("\n".join(await traces(broker, url))) from None


async def poison(rig: Rig, prepared: Prepared) -> None:
    """Every worker that began it has died."""
    for attempt in range(1, SETTINGS.max_attempts + 1):
        fence = msgspec.json.encode(Fence(t=1, consumer=f"dead-{attempt}", boot="b"))
        await rig.broker.commands.xadd(log_key(prepared.id), {"event": fence}, id=f"{attempt}-0")


async def queued(rig: Rig, archive: Archive) -> Prepared:
    return await ask(rig)


async def finished(rig: Rig, archive: Archive) -> Prepared:
    prepared = await ask(rig)
    async with rig.worker(engine=Speaker()):
        await rig.ended(prepared.id)
        await rig.idle()
    return prepared


async def archived(rig: Rig, archive: Archive) -> Prepared:
    prepared = await finished(rig, archive)
    await is_archived(rig.broker, archive)
    return prepared


async def archived_and_expired(rig: Rig, archive: Archive) -> Prepared:
    prepared = await archived(rig, archive)
    await rig.broker.commands.delete(log_key(prepared.id))
    return prepared


async def archived_and_tagged_anew(rig: Rig, archive: Archive) -> Prepared:
    prepared = await archived(rig, archive)
    stored = StoredResponses(rig.logs, archive, ResponseMetadata(archive.engine), ChatCompletions(archive.engine))
    await stored.change_metadata("default", prepared.id, {"about": ASKED, ANSWERED: "now"})
    return prepared


async def buried(rig: Rig, archive: Archive) -> Prepared:
    prepared = await ask(rig)
    await poison(rig, prepared)
    async with rig.worker(engine=Speaker()):
        await rig.ended(prepared.id)
        await rig.idle()
    assert await DeadLetters(rig.broker.commands).count() == 1
    return prepared


async def buried_archived_and_expired(rig: Rig, archive: Archive) -> Prepared:
    prepared = await buried(rig, archive)
    await is_archived(rig.broker, archive)
    await rig.broker.commands.delete(log_key(prepared.id))
    return prepared


State = Callable[[Rig, Archive], Awaitable[Prepared]]
STATES: list[State] = [
    queued,
    finished,
    archived,
    archived_and_expired,
    archived_and_tagged_anew,
    buried,
    buried_archived_and_expired,
]


@pytest.mark.parametrize("state", STATES)
async def test_of_what_is_deleted_nothing_is_left_whatever_had_become_of_it(
    broker: Broker, archive: Archive, url: str, state: State
) -> None:
    rig = Rig(broker)
    prepared = await state(rig, archive)
    assert await traces(broker, url), "the search finds what is there"
    await Chats(broker.commands, ttl_s=60).point("default", ASKED, prepared.id)
    await deleter(rig, archive).delete(prepared.id)
    await is_archived(broker, archive)
    await nothing_is_found(broker, url)
    assert (await row_of(url, prepared.id) or {})["status"] == "deleted"
    assert await archive.read_log(prepared.id) is None


async def test_of_what_is_deleted_while_it_is_generated_no_dead_letter_is_left(
    broker: Broker, archive: Archive, url: str
) -> None:
    rig, engine = Rig(broker), Speaker()
    engine.may_end.clear()
    prepared = await ask(rig)
    async with rig.worker(engine=engine):

        async def has_begun() -> bool:
            return (await rig.transcript(prepared.id)).text == ANSWERED

        await until(has_begun)
        await deleter(rig, archive).delete(prepared.id)
        engine.may_end.set()
        await rig.idle()
    await is_archived(broker, archive)
    await nothing_is_found(broker, url)


async def test_a_worker_that_comes_to_a_deleted_request_too_late_leaves_no_letter(broker: Broker, url: str) -> None:
    rig = Rig(broker)
    await rig.queue.ensure_groups()
    prepared = await ask(rig)
    [delivery] = await rig.queue.read("w", "interactive", 1)
    await rig.queue.remove(prepared.id)
    await rig.logs.remove(prepared.id)
    await rig.queue.bury(delivery, "log_gone")
    await nothing_is_found(broker, url)


async def test_a_request_that_does_not_parse_is_deleted_too(broker: Broker, url: str) -> None:
    rig = Rig(broker)
    prepared = rig.prepare()
    raw = msgspec.json.encode({"id": prepared.id, "tenant": "a", "request": ASKED})
    await broker.commands.xadd(requests_key(rig.model.name, "interactive"), {"request": raw})
    await rig.queue.remove(prepared.id)
    await nothing_is_found(broker, url)


async def test_what_is_not_to_be_stored_is_readable_for_a_while_and_then_nowhere(
    broker: Broker, archive: Archive, url: str
) -> None:
    rig = Rig(broker)
    prepared = await ask(rig, store=False)
    async with rig.worker(engine=Speaker()):
        await rig.ended(prepared.id)
        await rig.idle()
    await is_archived(broker, archive, SETTINGS)
    assert (await rig.transcript(prepared.id)).text == ANSWERED
    assert 0 < await broker.commands.ttl(log_key(prepared.id)) <= SETTINGS.unstored_ttl_s
    row = await row_of(url, prepared.id)
    assert row is not None
    assert (row["is_stored"], row["status"], row["output_tokens"]) == (False, "completed", 1)
    assert not await in_database(url, lambda c: found_in_sql(c)), "SQL never has any of it"
    await broker.commands.expire(log_key(prepared.id), 0)
    await nothing_is_found(broker, url)
    assert await archive.read_log(prepared.id) is None
    assert await broker.commands.zscore(open_key(), prepared.id) is None


async def found_in_sql(connection: Any) -> bool:
    everything = await everything_in_sql(connection)
    return ASKED in everything or ANSWERED in everything


async def test_the_time_of_an_unstored_log_runs_from_its_end_not_from_when_it_was_archived(
    broker: Broker, archive: Archive
) -> None:
    rig = Rig(broker)
    prepared = await ask(rig, store=False)
    async with rig.worker(engine=Speaker()):
        await rig.ended(prepared.id)
        await rig.idle()
    row = archived_response(prepared.id, await rig.logs.read_raw(prepared.id))
    since_s = time.time() - row.ended_at_ms / 1000
    longer = msgspec.structs.replace(SETTINGS, unstored_ttl_s=1000 + round(since_s))
    archiver = Archiver(longer, broker, archive, name="a")
    early = msgspec.structs.replace(row, accepted_at_ms=row.accepted_at_ms - 900_000)
    await archiver._let_expire([early])
    assert 0 < await broker.commands.ttl(log_key(prepared.id)) <= 101
    long_ago = msgspec.structs.replace(row, accepted_at_ms=row.accepted_at_ms - 9_000_000)
    await archiver._let_expire([long_ago])
    assert await broker.commands.ttl(log_key(prepared.id)) <= 1


@pytest.mark.parametrize("store", [True, False])
async def test_a_turn_of_a_conversation_is_no_exception(
    broker: Broker, archive: Archive, url: str, store: bool
) -> None:
    rig = Rig(broker)
    key = await add_conversation(url, "default", 0, 1)
    prepared = await ask(rig, store=store, conversation=f"conv_{key.hex()}")
    async with rig.worker(engine=Speaker()):
        await rig.ended(prepared.id)
        await rig.idle()
    await is_archived(broker, archive)
    assert await in_database(url, lambda c: found_in_sql(c)) == store
    if store:
        await deleter(rig, archive).delete(prepared.id)
    await nothing_is_found(broker, url)


async def only_letter(broker: Broker) -> StoredLetter:
    async def find() -> StoredLetter | None:
        found = await DeadLetters(broker.commands).newest(10)
        return found[0] if len(found) == 1 else None

    letter = await until(find, what="a dead letter")
    assert letter is not None
    return letter


async def requeue_is_refused(rig: Rig, letter: StoredLetter) -> None:
    client = rig.broker.commands
    requeuer = Requeuer(
        DeadLetters(client),
        rig.intake,
        Models([rig.model]),
        rig.logs,
        FinishedStream(client),
        rig.histories(),
        rig.reader(),
    )
    with pytest.raises(BadEntry, match="store: false"):
        await requeuer.requeue(letter)


async def test_the_letter_of_an_unstored_request_says_whose_it_was_and_not_what_was_asked(
    broker: Broker, archive: Archive, url: str
) -> None:
    rig = Rig(broker)
    prepared = await ask(rig, store=False, tenant="somebody")
    await poison(rig, prepared)
    async with rig.worker(engine=Speaker()):
        letter = await only_letter(broker)
        await rig.idle()
    assert (letter.salvaged.response_id, letter.salvaged.tenant) == (prepared.id, "somebody")
    assert letter.letter.reason == "max_attempts_exceeded"
    await requeue_is_refused(rig, letter)
    await is_archived(broker, archive)
    await nothing_is_found(broker, url)
    assert await DeadLetters(broker.commands).count() == 1


@pytest.mark.parametrize("tail", ['","seed":"no number"}}', ""], ids=["wrong", "cut"])
async def test_an_unstored_request_that_does_not_parse_leaves_a_letter_without_its_content(
    broker: Broker, url: str, tail: str
) -> None:
    rig = Rig(broker)
    prepared = prepare(rig, store=False)
    raw = msgspec.json.encode(prepared.request_entry()).decode()
    assert '"store":false' in raw
    broken = raw[:-2] + tail.removeprefix('"') if tail else raw[:-2]
    await broker.commands.xadd(requests_key(rig.model.name, "interactive"), {"request": broken.encode()})
    async with rig.worker(engine=Speaker()):
        letter = await only_letter(broker)
        await rig.idle()
    await nothing_is_found(broker, url)
    await requeue_is_refused(rig, letter)


async def test_an_unstored_request_that_no_worker_came_for_does_not_wait_in_the_queue(
    broker: Broker, archive: Archive, url: str
) -> None:
    rig = Rig(broker)
    await rig.queue.ensure_groups()
    left, taken = await ask(rig, store=False), await ask(rig, store=False)
    waiting = await rig.ask(3)
    assert len(await rig.queue.read("gone", "interactive", 2)) == 2, "its worker is dead"
    ender = Ender(rig.logs, FinishedStream(broker.commands), name="g", boot="g")
    for prepared in (left, taken):
        await ender.end(prepared.id, cancellation())
    await is_archived(broker, archive)
    await nothing_is_found(broker, url)
    assert await rig.queue.depth("interactive") == 1
    async with rig.worker():
        assert (await rig.ended(waiting.id)).text == " t0 t1 t2"


async def test_an_unstored_log_that_does_not_parse_expires_too(broker: Broker, url: str) -> None:
    rig = Rig(broker, settings=SHORT)
    prepared = await ask(rig, store=False)
    await broker.commands.xadd(log_key(prepared.id), {"event": b"{"}, id="1-1")
    async with rig.worker(engine=Speaker()):
        letter = await only_letter(broker)
        await rig.idle()
    assert letter.letter.reason == "log_unreadable"
    await nothing_is_found(broker, url)
    assert await broker.commands.zscore(open_key(), prepared.id) is None


async def test_an_unstored_log_whose_row_is_refused_does_not_wait_for_somebody_to_mend_it(
    broker: Broker, archive: Archive, url: str
) -> None:
    rig = Rig(broker)
    await run(url, refusing_trigger(url))
    prepared = await ask(rig, store=False, tenant="bad")
    good = await rig.ask(2)
    async with rig.worker(engine=Speaker()):
        await rig.ended(prepared.id)
        await rig.ended(good.id)
        await rig.idle()
    async with archiving(broker, archive):
        await only_letter(broker)
        await until(lambda: nothing_is_left(broker), what="an empty stream")
    await run(url, "DROP TRIGGER no")
    await rig.logs.remove(good.id)
    await deleter(rig, archive).delete(good.id)
    await nothing_is_found(broker, url)
    assert not await archive.exists(prepared.id)


def test_an_entry_that_only_talks_about_it_is_kept() -> None:
    request = GenerationRequest(model="m", messages=[Message("user", '"store":false')], metadata={"store": "false"})
    entry = RequestEntry(id=new_response_id(), tenant="a", accepted_at_ms=1, request=request)
    assert not is_unstored({b"request": msgspec.json.encode(entry)})
