"""What queues, leases and the workers' registry promise, over Valkey 9.1, Debian's Redis 7, Sentinel and a Cluster."""

from __future__ import annotations

import asyncio

import pytest

from schemas.errors import GroupMissing
from schemas.ids import new_response_id
from schemas.requests import GenerationRequest, Message, RequestEntry
from schemas.workers import WorkerInfo
from streams.connect import Broker
from streams.leases import Leases, WorkerRegistry
from streams.queue import RequestQueue
from tests.conftest import ON_ONE_NODE
from tests.waiting import until


@pytest.fixture(params=["valkey", "redis", "sentinel", "cluster"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


REQUEST = GenerationRequest(model="m", messages=[Message("user", "hi")])


async def test_of_two_claimants_the_second_finds_nothing(broker: Broker) -> None:
    queue = RequestQueue(broker.commands, "m")
    await queue.ensure_groups()
    entry = RequestEntry(id=new_response_id(), tenant="a", accepted_at_ms=1, request=REQUEST)
    await queue.send("interactive", entry)
    assert len(await queue.read("dead", "interactive", 10)) == 1
    claims = await asyncio.gather(*(queue.claim("dead", f"w-{i}", "interactive", 10) for i in range(2)))
    assert sorted(map(len, claims)) == [0, 1]
    assert (claims[0] or claims[1])[0].request() == entry


async def test_a_claim_takes_no_more_than_asked_for(broker: Broker) -> None:
    queue = RequestQueue(broker.commands, "m")
    await queue.ensure_groups()
    for _ in range(5):
        await queue.send("batch", RequestEntry(id=new_response_id(), tenant="a", accepted_at_ms=1, request=REQUEST))
    await queue.read("dead", "batch", 5)
    assert len(await queue.claim("dead", "w", "batch", 3)) == 3
    assert await queue.holders("batch") == {"dead": 2, "w": 3}


async def test_a_released_entry_can_be_claimed_at_once_and_its_delivery_count_stays(broker: Broker) -> None:
    queue = RequestQueue(broker.commands, "m")
    await queue.ensure_groups()
    await queue.send("interactive", RequestEntry(id=new_response_id(), tenant="a", accepted_at_ms=1, request=REQUEST))
    [delivery] = await queue.read("w-1", "interactive", 1)
    await queue.release(delivery)
    rows = await broker.commands.xpending_range("oc:requests:{m:interactive}", "inference", "-", "+", 10)
    assert [(r["consumer"], r["times_delivered"]) for r in rows] == [(b"released", 1)]
    assert len(await queue.claim("released", "w-2", "interactive", 1)) == 1


async def test_a_consumer_with_pending_entries_is_never_dropped(broker: Broker) -> None:
    queue = RequestQueue(broker.commands, "m")
    await queue.ensure_groups()
    await queue.send("interactive", RequestEntry(id=new_response_id(), tenant="a", accepted_at_ms=1, request=REQUEST))
    [delivery] = await queue.read("w", "interactive", 1)
    await queue.drop_consumer("w")
    assert await queue.holders("interactive") == {"w": 1}
    await queue.finish(delivery)
    await queue.finish(delivery)
    await queue.drop_consumer("w")
    assert await queue.holders("interactive") == {}
    assert await queue.depth("interactive") == 0


async def test_a_missing_group_is_told_apart_and_made_anew_from_the_start(broker: Broker) -> None:
    queue = RequestQueue(broker.commands, "m")
    await queue.send("interactive", RequestEntry(id=new_response_id(), tenant="a", accepted_at_ms=1, request=REQUEST))
    with pytest.raises(GroupMissing):
        await queue.read("w", "interactive", 1)
    await queue.ensure_groups()
    await queue.ensure_groups()
    assert len(await queue.read("w", "interactive", 1)) == 1


@ON_ONE_NODE
async def test_names_from_outside_are_escaped_in_keys(broker: Broker) -> None:
    queue = RequestQueue(broker.commands, "a:b}{c d/é")
    await queue.ensure_groups()
    keys = sorted(await broker.commands.keys("*"))
    assert keys == [b"oc:requests:{a%3Ab%7D%7Bc%20d%2F%C3%A9:" + lane + b"}" for lane in (b"batch", b"interactive")]


async def test_a_lease_ends_by_itself_and_a_renewal_then_says_so(broker: Broker) -> None:
    leases = Leases(broker.commands, 500)
    await leases.grant("w", "boot")
    assert await leases.renew("w", "boot")
    assert await leases.living(["w", "other"]) == {"w"}
    await until(lambda: is_dead(leases, "w"))
    assert not await leases.renew("w", "boot")


async def is_dead(leases: Leases, consumer: str) -> bool:
    return await leases.living([consumer]) == set()


async def test_the_registry_shows_only_the_living(broker: Broker) -> None:
    leases = Leases(broker.commands, 60_000)
    registry = WorkerRegistry(broker.commands, leases)
    for name in ("a", "b"):
        await registry.put(WorkerInfo(consumer=name, name=name, model="m", engine="synthetic", slots=1))
    await leases.grant("b", "boot")
    assert [info.consumer for info in await registry.living()] == ["b"]
