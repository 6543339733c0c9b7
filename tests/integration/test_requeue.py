"""Dead letters that are sent again."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from responses.accept import Intake
from responses.requeue import Requeuer
from schemas.errors import BadEntry, BrokerError, LogGone, ModelNotFound, OpenChatError, QueueFull
from schemas.events import Accepted, Fence, Queued
from schemas.models import ModelEntry, Models
from schemas.requests import DeadLetter, FinishedEntry, GenerationRequest, Lane, Message, RequestEntry
from schemas.settings import Settings
from streams.connect import Broker
from streams.dead import DeadLetters, StoredLetter
from streams.finished import FinishedStream
from streams.keys import FINISHED, log_key, requests_key
from streams.queue import RequestQueue
from tests.integration.rig import SETTINGS, Rig, text_of
from tests.waiting import until


def requeuer(rig: Rig, broker: Broker, models: Models | None = None, settings: Settings = SETTINGS) -> Requeuer:
    models = models or Models([rig.model])
    intake = Intake(settings, models, rig.logs, lambda name: RequestQueue(broker.commands, name))
    finished = FinishedStream(broker.commands)
    return Requeuer(DeadLetters(broker.commands), intake, models, rig.logs, finished, rig.histories(), rig.reader())


async def stored(broker: Broker, letter: DeadLetter) -> StoredLetter:
    letters = DeadLetters(broker.commands)
    return await letters.find(await letters.put(letter))


def letter_of(entry: RequestEntry, lane: Lane = "interactive", model: str = "synthetic", **changes: Any) -> DeadLetter:
    body = msgspec.json.encode(entry).decode()
    whole = DeadLetter(stream=requests_key(model, lane), entry_id="1-1", reason="test", body=body)
    return msgspec.structs.replace(whole, **changes)


async def test_poison_that_was_buried_is_served_as_a_new_response_once_the_cause_is_gone(broker: Broker) -> None:
    rig = Rig(broker)
    prepared = await rig.ask(20)
    for attempt in range(1, SETTINGS.max_attempts + 1):
        fence = msgspec.json.encode(Fence(t=1, consumer=f"dead-{attempt}", boot="b"))
        await broker.commands.xadd(log_key(prepared.id), {"event": fence}, id=f"{attempt}-0")
    letters = DeadLetters(broker.commands)
    async with rig.worker():
        await rig.ended(prepared.id)
        await rig.idle()
        [letter] = await letters.newest(10)
        done = await requeuer(rig, broker).requeue(letter)
        transcript = await rig.ended(done.response_id)
    assert done.retry_of == prepared.id != done.response_id
    assert transcript.text == text_of(20)
    assert transcript.attempts == 1
    assert transcript.accepted is not None
    assert transcript.accepted.retry_of == prepared.id
    assert await letters.count() == 0


async def test_what_was_asked_is_kept_but_nobody_waits_for_it(broker: Broker) -> None:
    rig = Rig(broker)
    request = GenerationRequest(
        model="synthetic",
        messages=[Message("user", "é🙂")],
        instructions="be brief",
        temperature=0.5,
        metadata={"a": "b"},
        deadline_at_ms=1000,
    )
    assert request.needs_viewer
    entry = RequestEntry(
        id=rig.prepare().id, tenant="somebody", accepted_at_ms=1, request=request, format="chat", key="key-1"
    )
    before_ms = time.time_ns() // 1_000_000
    done = await requeuer(rig, broker).requeue(await stored(broker, letter_of(entry, "batch")))
    accepted, queued = (one.event for one in await rig.logs.read(done.response_id))
    assert isinstance(accepted, Accepted)
    assert queued == Queued(t=0, lane="batch")
    assert (accepted.tenant, accepted.format, accepted.retry_of) == ("somebody", "chat", entry.id)
    assert accepted.key == "key-1"
    assert not accepted.request.needs_viewer
    assert accepted.request.deadline_at_ms >= before_ms + SETTINGS.request_timeout_s * 1000
    changed = {"deadline_at_ms": 1000, "on_disconnect": "cancel"}
    assert msgspec.structs.replace(accepted.request, **changed) == request
    assert await rig.queue.depth("batch") == 1
    assert await rig.queue.depth("interactive") == 0


async def test_a_request_without_a_deadline_gets_none(broker: Broker) -> None:
    rig = Rig(broker)
    done = await requeuer(rig, broker).requeue(await stored(broker, letter_of(rig.prepare().request_entry())))
    transcript = await rig.transcript(done.response_id)
    assert transcript.accepted is not None
    assert transcript.accepted.request.deadline_at_ms == 0


async def test_a_model_that_has_another_name_now_is_found_by_its_alias(broker: Broker) -> None:
    rig = Rig(broker)
    models = Models([ModelEntry(name="new", aliases=["synthetic"], engine="synthetic")])
    letter = await stored(broker, letter_of(rig.prepare().request_entry()))
    await requeuer(rig, broker, models).requeue(letter)
    assert await RequestQueue(broker.commands, "new").depth("interactive") == 1


async def is_kept(broker: Broker, rig: Rig, letter: StoredLetter, error: type[OpenChatError], **changes: Any) -> bool:
    with pytest.raises(error):
        await requeuer(rig, broker, **changes).requeue(letter)
    assert await DeadLetters(broker.commands).find(letter.id) == letter
    return True


@pytest.mark.parametrize(
    "changes",
    [{"body": "{nonsense"}, {"body": '{"x":"y"}'}, {"body": '{"id":"resp_1"}'}, {"stream": "oc:other"}, {"stream": ""}],
    ids=range(5),
)
async def test_what_does_not_parse_is_kept(broker: Broker, changes: dict[str, Any]) -> None:
    rig = Rig(broker)
    letter = await stored(broker, letter_of(rig.prepare().request_entry(), **changes))
    assert await is_kept(broker, rig, letter, BadEntry)
    assert await rig.logs.count_open() == 0


async def test_a_model_that_is_no_longer_served_is_said_and_the_letter_kept(broker: Broker) -> None:
    rig = Rig(broker)
    letter = await stored(broker, letter_of(rig.prepare().request_entry()))
    models = Models([ModelEntry(name="other", engine="synthetic")])
    assert await is_kept(broker, rig, letter, ModelNotFound, models=models)


async def test_a_queue_at_its_bound_takes_none_and_the_letter_is_kept(broker: Broker) -> None:
    rig = Rig(broker)
    await rig.ask(1)
    letter = await stored(broker, letter_of(rig.prepare().request_entry()))
    settings = msgspec.structs.replace(SETTINGS, max_queued=1)
    assert await is_kept(broker, rig, letter, QueueFull, settings=settings)


async def test_a_letter_is_deleted_only_after_its_request_was_accepted(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(broker)

    async def send_nothing(*_: object) -> None:
        raise BrokerError

    letter = await stored(broker, letter_of(rig.prepare().request_entry()))
    with monkeypatch.context() as patch:
        patch.setattr(RequestQueue, "send", send_nothing)
        assert await is_kept(broker, rig, letter, BrokerError)
    await requeuer(rig, broker).requeue(letter)
    assert await DeadLetters(broker.commands).count() == 0


async def test_what_was_not_archived_goes_to_the_archiver_under_its_own_id(broker: Broker) -> None:
    rig = Rig(broker)
    prepared = await rig.ask(3)
    body = msgspec.json.encode(FinishedEntry(id=prepared.id, status="completed")).decode()
    letter = DeadLetter(stream=FINISHED, entry_id="1-1", reason="not_archivable", body=body)
    done = await requeuer(rig, broker).requeue(await stored(broker, letter))
    assert (done.response_id, done.retry_of) == (prepared.id, None)
    assert await FinishedStream(broker.commands).added() == 1
    assert await rig.queue.depth("interactive") == 1, "nothing was asked again"
    await rig.logs.remove(prepared.id)
    assert await is_kept(broker, rig, await stored(broker, letter), LogGone)


async def test_two_operators_at_once_lose_nothing(broker: Broker) -> None:
    rig = Rig(broker)
    letter = await stored(broker, letter_of(rig.prepare().request_entry()))
    one, two = requeuer(rig, broker), requeuer(rig, broker)
    async with rig.worker():
        for done in (await one.requeue(letter), await two.requeue(letter)):
            await rig.ended(done.response_id)
    await until(lambda: nothing_left(broker))


async def nothing_left(broker: Broker) -> bool:
    return await DeadLetters(broker.commands).count() == 0
