"""A fork goes on exactly where it was cut, whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from archive.connect import open_archive
from archive.migrate import migrate
from archive.store import Archive
from responses.accept import Prepared
from responses.end import Ender, cancellation
from responses.fork import cut, forked_request
from responses.requeue import Requeuer
from responses.restore import Restorer
from responses.rows import archived_response
from responses.sweep import Sweeper, Swept
from schemas.bodies import ForkBody
from schemas.capabilities import Capabilities
from schemas.errors import LogGone
from schemas.events import (
    Accepted,
    Entry,
    EntryId,
    Failed,
    Fence,
    Incomplete,
    InProgress,
    ItemAdded,
    ItemDone,
    LogEvent,
    PartAdded,
    PartDone,
    Text,
    TextDone,
    Usage,
    encode_event,
)
from schemas.ids import ResponseId
from schemas.models import Models
from schemas.requests import Message, Takeover
from streams.connect import Broker
from streams.dead import DeadLetters
from streams.finished import FinishedStream
from streams.keys import log_key, mark_key, open_key, requests_key
from streams.writer import LogAppender
from streams.writers import Writers
from tests.integration.rig import SETTINGS, Rig, synthetic, text_of
from tests.integration.talk import Talk
from tests.waiting import until

FIRST_TEXT = 5
"""Sequence of the first token of the synthetic engine."""


@pytest.fixture(params=["valkey"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[Archive]:
    url = f"sqlite+aiosqlite:///{tmp_path / 'a.sqlite3'}"
    await migrate(url, print)
    async with open_archive(url) as archive:
        yield archive


def fork_of(entries: list[Entry], after: int, takeover: Takeover | None = None, **changes: Any) -> Prepared:
    """As a gateway makes it."""
    shown = [entry for entry in entries if not entry.id.is_fence]
    accepted = shown[0].event
    assert isinstance(accepted, Accepted)
    request = forked_request(accepted, ForkBody(after=after, **changes), deadline_at_ms=0)
    request = msgspec.structs.replace(request, takeover=takeover)
    fork = cut(shown, after, engine="synthetic")
    return Prepared(request, tenant="default", format="responses", lane="interactive", fork=fork)


def ended_log(rig: Rig) -> list[Entry]:
    """Of a response with ten tokens that nobody must have generated."""
    prepared = rig.prepare(10)
    begun = [InProgress(t=1), ItemAdded(t=1), PartAdded(t=1)]
    texts = [Text(t=2, delta=f" t{index}", tokens=(index,)) for index in range(10)]
    end = [TextDone(t=3), PartDone(t=3), ItemDone(t=3), Incomplete(t=3, usage=Usage())]
    events: list[LogEvent] = [*begun, *texts, *end]
    return prepared.entries + [Entry(EntryId(1, number), event) for number, event in enumerate(events, start=3)]


async def forked(rig: Rig, entries: list[Entry], after: int, **changes: Any) -> Prepared:
    prepared = fork_of(entries, after, **changes)
    await rig.intake.accept(prepared)
    return prepared


async def test_at_every_event_it_goes_on_with_the_same_text_and_what_it_kept_counts_as_input(broker: Broker) -> None:
    rig = Rig(broker)
    old = await rig.ask(10)
    async with rig.worker():
        await rig.ended(old.id)
    entries = await rig.logs.read(old.id)
    forks = [await forked(rig, entries, after) for after in range(FIRST_TEXT + 9)]
    async with rig.worker():
        for after, prepared in enumerate(forks):
            transcript = await rig.ended(prepared.id)
            assert transcript.text == text_of(10)
            assert transcript.attempts == 1
            kept = max(0, after - FIRST_TEXT + 1)
            assert isinstance(transcript.terminal, Incomplete)
            usage = transcript.terminal.usage
            assert (usage.input_tokens, usage.output_tokens) == (1 + kept, 10 - kept)
            log = await rig.logs.read(prepared.id)
            assert next(e.event for e in log if isinstance(e.event, InProgress)).engine == "synthetic"
            shown = [e.event for e in log if not e.id.is_fence]
            assert [type(e) for e in shown] == [type(e.event) for e in entries if not e.id.is_fence]
            row = archived_response(prepared.id, await rig.logs.read_raw(prepared.id))
            assert row.first_text_ms is not None, "the first that was generated"
            assert row.output_tokens == 10 - kept
        await rig.idle()


async def test_a_live_response_is_forked_and_both_go_on(broker: Broker) -> None:
    rig = Rig(broker)
    async with rig.worker(engine=synthetic(50)):
        old = await rig.ask(60)
        await until(lambda: has_tokens(rig, old.id, 10), what="some tokens")
        entries = await rig.logs.read(old.id)
        last = len([e for e in entries if not e.id.is_fence]) - 1
        new = await forked(rig, entries, last, max_output_tokens=40)
        assert (await rig.ended(new.id)).text == text_of(40)
        assert (await rig.ended(old.id)).text == text_of(60)


async def has_tokens(rig: Rig, response_id: ResponseId, count: int) -> bool:
    return len((await rig.transcript(response_id)).tokens) >= count


async def test_a_cancelled_fork_has_used_only_what_was_generated(broker: Broker) -> None:
    rig = Rig(broker)
    new = await forked(rig, ended_log(rig), FIRST_TEXT + 3)
    await Ender(rig.logs, FinishedStream(broker.commands), name="g", boot="g").end(new.id, cancellation())
    transcript = await rig.transcript(new.id)
    assert (transcript.text, transcript.terminal.usage.output_tokens) == (text_of(4), 0)  # type: ignore[union-attr]


async def test_under_every_policy_what_was_copied_is_gone_on_from_and_what_an_attempt_added_is_taken_over(
    broker: Broker,
) -> None:
    rig = Rig(broker)
    await rig.queue.ensure_groups()
    cases: list[tuple[Takeover, int]] = [("continue", 2), ("restart", 0), ("restart", 2), ("fail", 0)]
    begun = {}
    for policy, own in cases:
        new = begun[policy, own] = await forked(rig, ended_log(rig), FIRST_TEXT + 3, takeover=policy)
        await rig.queue.read("dead-1", "interactive", 1)
        async with writers(broker, "dead-1") as dead:
            await write(rig, dead, new.id, own)
    fresh = [await forked(rig, ended_log(rig), FIRST_TEXT + 3, takeover=policy) for policy, _ in cases]
    async with rig.worker():
        for new in fresh:
            assert (await rig.ended(new.id)).text == text_of(10)
        for (policy, own), new in begun.items():
            transcript = await rig.ended(new.id)
            assert transcript.attempts == 2
            is_lost = (policy, own) in (("restart", 2), ("fail", 0))
            code = transcript.terminal.error.code if isinstance(transcript.terminal, Failed) else None
            assert code == ("worker_lost" if is_lost else None)
            assert transcript.text == text_of(4 + own if is_lost else 10)


@asynccontextmanager
async def writers(broker: Broker, name: str) -> AsyncIterator[Writers]:
    """Those of a worker."""
    writers = Writers(broker.commands, partitions=1, consumer=name, boot="x", flush_ms=0, bus_max_entries=100)
    task = asyncio.create_task(writers.run_flushes())
    yield writers
    writers.stop()
    await task


async def write(rig: Rig, writers: Writers, response_id: ResponseId, count: int) -> LogAppender:
    """Take it and write the next tokens."""
    appender = writers.open(response_id, 1)
    await appender.take(0)
    log = await rig.logs.read(response_id)
    transcript = await rig.transcript(response_id)
    appender.next_number = transcript.next_number
    appender.taken(log)
    first = len(transcript.tokens)
    for index in range(first, first + count):
        appender.append(Text(t=1, delta=f" t{index}", tokens=(index,)))
    await appender.flushed()
    return appender


async def test_what_a_failover_took_behind_the_copies_is_put_back(broker: Broker) -> None:
    rig = Rig(broker)
    new = await forked(rig, ended_log(rig), FIRST_TEXT + 3)
    key = log_key(new.id)
    replica = await broker.commands.dump(key)
    async with writers(broker, "w") as living:
        appender = await write(rig, living, new.id, 3)
        before = await rig.logs.read_raw(new.id)
        await broker.commands.restore(key, 0, replica, replace=True)
        await broker.commands.delete(mark_key("w"))
        appender.append(Text(t=1, delta=" t7", tokens=(7,)))
        await appender.flushed()
    assert (await rig.logs.read_raw(new.id))[:-1] == before
    assert (await rig.transcript(new.id)).text == text_of(8)


async def test_a_fork_that_was_lost_whole_is_put_back_with_what_it_had_copied(broker: Broker, archive: Archive) -> None:
    rig = Rig(broker)
    new = await forked(rig, ended_log(rig), FIRST_TEXT + 3)
    before = await rig.logs.read_raw(new.id)
    await broker.commands.delete(log_key(new.id), open_key(), requests_key("synthetic", "interactive"))
    stream = FinishedStream(broker.commands)
    restorer = Restorer(rig.logs, archive, stream, lambda _: rig.queue, rig.histories(archive))
    assert await restorer.restore(new.entries) == len(new.entries)
    assert await rig.logs.read_raw(new.id) == before
    async with rig.worker():
        assert (await rig.ended(new.id)).text == text_of(10)


async def test_a_worker_that_can_not_go_on_says_so(broker: Broker) -> None:
    rig = Rig(broker)
    new = await forked(rig, ended_log(rig), FIRST_TEXT + 3)
    empty = await forked(rig, await rig.logs.read(new.id), FIRST_TEXT - 1)
    engine = synthetic()
    engine.capabilities = Capabilities()
    async with rig.worker(engine=engine):
        transcript = await rig.ended(new.id)
        assert (await rig.ended(empty.id)).text == text_of(10)
    assert isinstance(transcript.terminal, Failed)
    assert transcript.terminal.error.code == "capability_missing"
    assert transcript.text == text_of(4)


async def test_one_that_was_never_queued_is_ended(broker: Broker, archive: Archive) -> None:
    rig = Rig(broker)
    new = fork_of(ended_log(rig), FIRST_TEXT + 3)
    await rig.logs.accept(new.id, new.accepted.at_ms, new.events)
    stream = FinishedStream(broker.commands)
    ender = Ender(rig.logs, stream, name="sweep", boot="s")
    sweeper = Sweeper(rig.logs, archive, stream, ender, lambda _: rig.queue, unqueued_ms=-1000)
    assert await sweeper.sweep() == Swept(never_queued=1)
    terminal = (await rig.transcript(new.id)).terminal
    assert isinstance(terminal, Failed)
    assert terminal.error.code == "never_queued"


async def test_poison_is_sent_again_with_what_it_had_copied_as_long_as_its_log_is_anywhere(
    broker: Broker, archive: Archive
) -> None:
    rig = Rig(broker)
    new = await forked(rig, ended_log(rig), FIRST_TEXT + 3)
    for attempt in range(1, SETTINGS.max_attempts + 1):
        fence = encode_event(Fence(t=1, consumer=f"dead-{attempt}", boot="b"))
        await broker.commands.xadd(log_key(new.id), {"event": fence}, id=f"{attempt}-0")
    letters = DeadLetters(broker.commands)
    stream = FinishedStream(broker.commands)
    requeuer = Requeuer(
        letters, rig.intake, Models([rig.model]), rig.logs, stream, rig.histories(archive), rig.reader(archive)
    )
    async with rig.worker():
        await rig.ended(new.id)
        await rig.idle()
        [letter] = await letters.newest(10)
        again = [await requeuer.requeue(letter)]
        row = archived_response(new.id, await rig.logs.read_raw(new.id))
        await rig.logs.remove(new.id)
        with pytest.raises(LogGone, match="fork again"):
            await requeuer.requeue(letter)
        await archive.insert([row])
        again.append(await requeuer.requeue(letter))
        for one in again:
            transcript = await rig.ended(one.response_id)
            assert transcript.text == text_of(10)
            assert transcript.accepted is not None
            assert (transcript.accepted.retry_of, transcript.accepted.fork_of) == (new.id, new.accepted.fork_of)
            assert transcript.choices[0].copied_tokens == 4


@pytest.mark.parametrize("is_archived", [False, True], ids=["log", "archive"])
async def test_a_fork_of_a_turn_has_the_turns_before_it_and_adds_none(
    broker: Broker, archive: Archive, is_archived: bool
) -> None:
    talk = Talk(broker, archive)
    conversation = await talk.conversation()
    first, second = [await talk.say(text, conversation=conversation) for text in ("one", "two")]
    if is_archived:
        await talk.archived(first, second)
    running = await talk.begin("three", conversation=conversation)
    of_first = fork_of(await talk.rig.reader(archive).read(first.id), 1).accepted.request
    assert (await talk.histories.before("default", of_first)).messages == []
    entries = await talk.rig.reader(archive).read(second.id)
    new = fork_of(entries, 1)
    before = await talk.histories.before("default", new.accepted.request)
    new = Prepared(
        new.accepted.request, tenant="default", format="responses", lane="interactive", history=before.messages
    )
    await talk.histories.join(new.accepted.request, new.id, before)
    await talk.rig.intake.accept(new)
    async with talk.rig.worker(engine=talk.engine):
        await talk.rig.ended(new.id)
        await talk.rig.ended(running.id)
    asked = [[message.text for message in messages] for messages in talk.engine.asked]
    assert ["one", " re: one", "two"] in asked[2:]
    shown = ["one", " re: one", "two", " re: two", "three", " re: three"]
    assert await talk.shown(conversation) == shown
    if is_archived:
        await talk.archived(running, new)
    assert await talk.shown(conversation) == shown
    await talk.say("four", previous_response_id=new.id)
    assert talk.engine.asked[-1][:3] == [
        Message("user", "one"),
        Message("assistant", " re: one"),
        Message("user", "two"),
    ]
    assert [message.text for message in talk.engine.asked[-1][3:]] == [" re: two", "four"]
