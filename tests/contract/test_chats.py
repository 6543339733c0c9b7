"""What the names of chats promise, over Valkey 9.1, Debian's Redis 7, Sentinel and a Cluster."""

from __future__ import annotations

import pytest

from schemas.ids import new_response_id
from streams.chats import Chats
from streams.connect import Broker
from streams.keys import chat_key


@pytest.fixture(params=["valkey", "redis", "sentinel", "cluster"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_chat_names_its_newest_response_for_a_while_and_each_tenant_has_names_of_its_own(
    broker: Broker,
) -> None:
    chats = Chats(broker.commands, ttl_s=60)
    first, second = new_response_id(), new_response_id()
    name = "a chat/ with {any} name \u0000" * 8
    assert await chats.newest("a", name) is None
    await chats.point("a", name, first)
    await chats.point("a", name, second)
    assert await chats.newest("a", name) == second
    assert await chats.newest("b", name) is None
    assert await chats.newest("a", name + " ") is None
    key = chat_key("a", name)
    assert 50 < await broker.commands.ttl(key) <= 60
    assert len(key) < 80, "a name is as long as its client likes"
