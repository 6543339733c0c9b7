"""What came before a request: the same for its worker, whether the archiver has come so far or not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from archive.connect import open_archive
from archive.migrate import migrate
from archive.store import Archive
from responses import history, read
from responses.delete import Deleter
from responses.end import cancellation, failure
from responses.requeue import Requeuer
from responses.restore import Restorer
from schemas.archived import StoredEntry
from schemas.bodies import MessageItem
from schemas.conversations import Page
from schemas.errors import ConversationLocked, ConversationNotFound, InvalidRequest, ItemNotFound, ResponseNotFound
from schemas.ids import ResponseId, new_conversation_id, new_response_id
from schemas.models import Models
from schemas.requests import Message
from schemas.tools import ToolCall
from streams.connect import Broker
from streams.dead import DeadLetters
from streams.keys import FINISHED, log_key
from tests.integration.talk import Talk
from tests.waiting import until

HISTORY = [
    Message("user", "one"),
    Message("assistant", " re: one"),
    Message("user", "two"),
    Message("assistant", " re: two"),
]


@pytest.fixture(params=["valkey"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database() -> str:
    return "sqlite"


ON_BOTH = pytest.mark.parametrize("database", ["sqlite", "mariadb"])


@pytest.fixture
async def archive(tmp_path: Path, database: str, request: pytest.FixtureRequest) -> AsyncIterator[Archive]:
    if database == "mariadb":
        url = await request.getfixturevalue("mariadb").database()
    else:
        url = f"sqlite+aiosqlite:///{tmp_path / 'a.sqlite3'}"
    await migrate(url, print)
    async with open_archive(url) as archive:
        yield archive


@pytest.fixture
def talk(broker: Broker, archive: Archive) -> Talk:
    return Talk(broker, archive)


@pytest.mark.parametrize("is_archived", [False, True], ids=["log", "archive"])
async def test_a_response_goes_on_from_another_and_its_log_has_only_what_is_new(talk: Talk, is_archived: bool) -> None:
    turns = [await talk.say("one", instructions="be brief")]
    for text in ("two", "three"):
        turns.append(await talk.say(text, previous_response_id=turns[-1].id))
        if is_archived:
            await talk.archived(*turns)
    assert talk.engine.asked[-1] == [*HISTORY, Message("user", "three")]
    assert turns[-1].accepted.request.messages == [Message("user", "three")]
    assert turns[-1].accepted.request.instructions is None, "they count for one response"


async def test_calls_and_their_results_are_part_of_the_history(talk: Talk) -> None:
    call = ToolCall("call_1", "weather", '{"city":"Rome"}')
    given = [Message("user", "x"), Message("assistant", "wait", [call]), Message("tool", "rain", [], "call_1")]
    first = await talk.say(*given)
    await talk.archived(first)
    second = await talk.say("and now?", previous_response_id=first.id)
    assert second.id
    assert talk.engine.asked[-1] == [*given, Message("assistant", " re: rain"), Message("user", "and now?")]


async def test_from_what_is_not_there_or_has_no_answer_nothing_goes_on(talk: Talk) -> None:
    other = await talk.say("secret", tenant="other")
    unstored = await talk.say("x", store=False)
    for response_id in (other.id, unstored.id, new_response_id()):
        with pytest.raises(ResponseNotFound) as caught:
            await talk.begin("y", previous_response_id=response_id)
        assert caught.value.param == "previous_response_id"
    running = await talk.begin("x")
    with pytest.raises(InvalidRequest, match="has not ended"):
        await talk.begin("y", previous_response_id=running.id)
    await talk.ender.end(running.id, failure("x", "y"))
    with pytest.raises(InvalidRequest, match="failed"):
        await talk.begin("y", previous_response_id=running.id)


async def test_a_long_chain_is_read_with_a_few_queries_and_a_deleted_one_ends_it(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "_BACK", 3)
    turns = [await talk.say("0")]
    for i in range(1, 8):
        turns.append(await talk.say(str(i), previous_response_id=turns[-1].id))
    await talk.archived(*turns[:-1])
    asked = []
    read_back = talk.archive.read_back

    async def counted(response_id: ResponseId, limit: int) -> dict[ResponseId, list[StoredEntry]]:
        asked.append(response_id)
        return await read_back(response_id, limit)

    monkeypatch.setattr(talk.archive, "read_back", counted)
    found = await talk.histories.before("default", turns[-1].accepted.request)
    assert [message.text for message in found.messages] == [t for i in range(7) for t in (str(i), f" re: {i}")]
    assert asked == [turns[6].id, turns[3].id, turns[0].id]
    await talk.archive.erase(turns[4].id, None)
    with pytest.raises(ResponseNotFound, match=turns[4].id):
        await talk.begin("x", previous_response_id=turns[-1].id)


async def test_more_than_the_broker_should_hold_is_refused(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    conversation = await talk.conversation()
    last = await talk.say("three, and a little more", conversation=conversation)
    monkeypatch.setattr(history, "MAX_CHARACTERS", 20)
    for refs in ({"conversation": conversation}, {"previous_response_id": last.id}):
        with pytest.raises(InvalidRequest, match="larger than 20 characters"):
            await talk.begin("x", **refs)


async def test_a_chain_is_bounded(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_TURNS", 2)
    first = await talk.say("one")
    second = await talk.say("two", previous_response_id=first.id)
    third = await talk.say("three", previous_response_id=second.id)
    with pytest.raises(InvalidRequest, match="More than 2 responses"):
        await talk.begin("four", previous_response_id=third.id)


@ON_BOTH
async def test_a_turn_sees_the_turns_before_it_wherever_they_are(talk: Talk) -> None:
    conversation = await talk.conversation()
    first = await talk.say("one", conversation=conversation)
    second = await talk.say("two", conversation=conversation)
    assert await talk.shown(conversation) == ["one", " re: one", "two", " re: two"]
    assert await talk.archive.conversations.items(conversation, limit=9) == []
    third = await talk.say("three", conversation=conversation)
    assert talk.engine.asked[-1] == [*HISTORY, Message("user", "three")]
    await talk.archived(first, second, third)
    fourth = await talk.say("four", conversation=conversation)
    assert talk.engine.asked[-1][-3:] == [
        Message("user", "three"),
        Message("assistant", " re: three"),
        Message("user", "four"),
    ]
    assert len(talk.engine.asked[-1]) == 7
    expected = ["one", " re: one", "two", " re: two", "three", " re: three", "four", " re: four"]
    assert await talk.shown(conversation) == expected
    await talk.archived(fourth)
    assert await talk.shown(conversation) == expected
    assert [i.position for i in await talk.archive.conversations.items(conversation, limit=9)] == list(range(8))


async def test_pages_go_over_from_stored_items_to_those_of_turns_that_wait(talk: Talk) -> None:
    conversation = await talk.conversation()
    await talk.archived(await talk.say("one", conversation=conversation))
    await talk.say("two", conversation=conversation)
    whole = await talk.reader.page("default", conversation, Page(limit=100, is_descending=False))
    assert len(whole) == 4
    for is_descending in (False, True):
        ordered = whole[::-1] if is_descending else whole
        for size in (1, 2, 3):
            seen, after = [], ""
            while found := await talk.reader.page(
                "default", conversation, Page(limit=size, after=after, is_descending=is_descending)
            ):
                seen += found
                after = found[-1].id
            assert [i.id for i in seen] == [i.id for i in ordered]
    for one in whole:
        assert (await talk.reader.item("default", conversation, one.id)).body == one.body
    with pytest.raises(ItemNotFound):
        await talk.reader.page("default", conversation, Page(limit=1, after="msg_x"))


@ON_BOTH
async def test_while_a_turn_runs_no_other_begins_and_nothing_is_changed_by_hand(talk: Talk) -> None:
    conversation = await talk.conversation()
    running = await talk.begin("one", conversation=conversation)
    item = MessageItem("user", "by hand")
    for attempt in (
        talk.begin("two", conversation=conversation),
        talk.editor.add_items("default", conversation, [item]),
        talk.editor.delete_item("default", conversation, "msg_x"),
    ):
        with pytest.raises(ConversationLocked):
            await attempt
    assert await talk.shown(conversation) == []
    await talk.ender.end(running.id, cancellation())
    second = await talk.say("two", conversation=conversation)
    assert talk.engine.asked[-1] == [Message("user", "two")], "a turn that was cancelled adds nothing"
    async with talk.archiving():
        await talk.editor.add_items("default", conversation, [item])
    assert await talk.archive.exists(second.id)
    assert await talk.shown(conversation) == ["two", " re: two", "by hand"]


async def test_a_turn_that_is_just_being_accepted_locks_and_one_that_was_lost_does_not(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = await talk.conversation()
    assert await talk.rig.turns.join(conversation, new_response_id(), seen=None)
    with pytest.raises(ConversationLocked):
        await talk.begin("one", conversation=conversation)
    monkeypatch.setattr("responses.conversations._YOUNG_MS", -1)
    await talk.say("one", conversation=conversation)
    assert talk.engine.asked == [[Message("user", "one")]]


async def test_the_conversation_of_another_tenant_does_not_exist(talk: Talk) -> None:
    conversation = await talk.conversation()
    for attempt in (
        talk.begin("x", conversation=conversation, tenant="other"),
        talk.begin("x", conversation=new_conversation_id()),
        talk.editor.add_items("other", conversation, []),
        talk.editor.delete("other", conversation),
        talk.reader.page("other", conversation, Page(limit=1)),
    ):
        with pytest.raises(ConversationNotFound):
            await attempt


async def test_what_is_not_stored_is_no_turn(talk: Talk) -> None:
    conversation = await talk.conversation()
    unstored = await talk.say("one", conversation=conversation, store=False)
    assert await talk.shown(conversation) == []
    await talk.archived(unstored)
    assert await talk.shown(conversation) == []


@pytest.mark.parametrize("is_archived", [False, True], ids=["waiting", "archived"])
async def test_a_deleted_response_is_no_turn_any_more(talk: Talk, is_archived: bool) -> None:
    conversation = await talk.conversation()
    first = await talk.say("one", conversation=conversation)
    second = await talk.say("two", conversation=conversation)
    if is_archived:
        await talk.archived(first, second, is_gone=False)
    letters = DeadLetters(talk.broker.commands)
    deleter = Deleter(talk.rig.logs, talk.archive, talk.ender, lambda _: talk.rig.queue, letters)
    await deleter.delete(second.id)
    assert await talk.shown(conversation) == ["one", " re: one"]
    await talk.say("three", conversation=conversation)
    assert [message.text for message in talk.engine.asked[-1]] == ["one", " re: one", "three"]


@ON_BOTH
async def test_turns_are_stored_in_their_order_whatever_the_archiver_hears_first(talk: Talk) -> None:
    conversation = await talk.conversation()
    turns = [await talk.say(text, conversation=conversation) for text in ("one", "two", "three")]
    heard = await talk.broker.commands.xrange(FINISHED)
    await talk.broker.commands.delete(FINISHED)
    for _, fields in heard[1:][::-1]:  # the first one is not told of at all
        await talk.broker.commands.xadd(FINISHED, fields)
    await talk.archived(*turns)
    items = await talk.archive.conversations.items(conversation, limit=9)
    assert [i.response_id for i in items] == [turn.id for turn in turns for _ in range(2)]
    assert await talk.rig.turns.waiting(conversation) == [turns[-1].id]


@ON_BOTH
async def test_whoever_makes_a_request_entry_again_finds_the_same_history(talk: Talk) -> None:
    conversation = await talk.conversation()
    first, second = await talk.say("one", conversation=conversation), await talk.say("two", conversation=conversation)
    third = await talk.begin("three", conversation=conversation)
    wanted = third.request_entry().request.messages[:-1]
    assert wanted == HISTORY

    async def found() -> list[Message]:
        return (await talk.histories.before("default", third.accepted.request, third.id)).messages

    assert await found() == wanted
    await talk.archived(first, second)
    assert await found() == wanted
    async with talk.rig.worker(engine=talk.engine):
        await talk.rig.ended(third.id)
    fourth = await talk.say("four", conversation=conversation)
    assert await found() == wanted
    await talk.archived(third, fourth)
    assert await found() == wanted
    branch = await talk.say("three again", previous_response_id=second.id)
    assert talk.engine.asked[-1] == [*wanted, Message("user", "three again")], "from inside a conversation"
    assert not branch.accepted.request.conversation


async def test_a_request_that_a_failover_took_is_put_back_with_its_history(talk: Talk) -> None:
    first = await talk.say("one")
    second = await talk.begin("two", previous_response_id=first.id)
    shown = await talk.rig.logs.read(second.id)
    await talk.broker.commands.delete(log_key(second.id))
    await talk.rig.queue.remove(second.id)
    assert await talk.rig.queue.depth("interactive") == 0
    restorer = Restorer(talk.rig.logs, talk.archive, talk.finished, lambda _: talk.rig.queue, talk.histories)
    assert await restorer.restore(shown) == 2
    async with talk.rig.worker(engine=talk.engine):
        await talk.rig.ended(second.id)
    assert talk.engine.asked[-1] == HISTORY[:3]


async def test_a_dead_letter_is_sent_again_with_its_history_and_the_log_still_has_only_what_is_new(talk: Talk) -> None:
    first = await talk.say("one")
    second = await talk.begin("two", previous_response_id=first.id)
    await talk.broker.commands.delete(log_key(second.id))
    letters = DeadLetters(talk.broker.commands)
    async with talk.rig.worker(engine=talk.engine):
        (letter,) = await until(lambda: letters.newest(1), what="the letter")
        assert "one" not in letter.letter.body, "it is another's, and may be deleted"
        requeuer = Requeuer(
            letters,
            talk.rig.intake,
            Models([talk.rig.model]),
            talk.rig.logs,
            talk.finished,
            talk.histories,
            talk.rig.reader(talk.archive),
        )
        again = await requeuer.requeue(letter)
        transcript = await talk.rig.ended(again.response_id)
    assert talk.engine.asked[-1] == HISTORY[:3]
    assert transcript.accepted is not None
    assert transcript.accepted.request.messages == [Message("user", "two")]
    assert transcript.accepted.request.previous_response_id == first.id
