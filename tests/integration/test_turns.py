"""The turns of a conversation in the broker."""

from __future__ import annotations

import asyncio

import pytest

from schemas.ids import new_conversation_id, new_response_id
from streams.connect import Broker
from streams.keys import conversation_key
from streams.turns import ConversationTurns


@pytest.fixture(params=["valkey", "redis", "cluster"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_of_many_that_have_seen_the_same_turn_one_joins(broker: Broker) -> None:
    turns, talk = ConversationTurns(broker.commands), new_conversation_id()
    first = new_response_id()
    assert await turns.join(talk, first, seen=None)
    others = [new_response_id() for _ in range(20)]
    joined = await asyncio.gather(*(turns.join(talk, other, seen=first) for other in others))
    assert sum(joined) == 1
    winner = others[joined.index(True)]
    assert await turns.waiting(talk) == [first, winner]
    assert await turns.join(talk, winner, seen=first), "may be repeated"
    assert not await turns.join(talk, new_response_id(), seen=None)
    assert await turns.waiting(talk) == [first, winner]


async def test_what_is_archived_leaves_with_what_came_before_it_but_the_last_stays_to_be_compared_with(
    broker: Broker,
) -> None:
    turns, talk = ConversationTurns(broker.commands), new_conversation_id()
    ids = [new_response_id() for _ in range(4)]
    for seen, one in zip([None, *ids], ids, strict=False):
        assert await turns.join(talk, one, seen=seen)
    await turns.leave(talk, ids[1])
    assert await turns.waiting(talk) == ids[2:]
    await turns.leave(talk, ids[0])
    await turns.leave(talk, ids[3])
    assert await turns.waiting(talk) == ids[3:]
    assert 0 < await broker.commands.ttl(conversation_key(talk)) <= 3600
    assert not await turns.join(talk, new_response_id(), seen=None), "who has not seen it has an older history"
    again = new_response_id()
    assert await turns.join(talk, again, seen=ids[3])
    assert await broker.commands.ttl(conversation_key(talk)) > 3600
    await turns.forget(talk)
    assert await turns.waiting(talk) == []


async def test_only_so_many_turns_wait_for_the_archive(broker: Broker) -> None:
    turns, talk = ConversationTurns(broker.commands), new_conversation_id()
    seen = None
    for _ in range(100):
        one = new_response_id()
        assert await turns.join(talk, one, seen=seen)
        seen = one
    assert not await turns.join(talk, new_response_id(), seen=seen)
