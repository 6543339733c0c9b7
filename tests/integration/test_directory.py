"""Which models a gateway takes requests for, as workers come and go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from responses.capabilities import check_capabilities
from responses.directory import ModelDirectory, Served
from schemas.capabilities import Capabilities
from schemas.errors import BrokerError, CapabilityMissing, ModelNotFound
from schemas.models import ModelEntry, Models
from schemas.requests import GenerationRequest, Message
from schemas.tools import Tool
from schemas.workers import WorkerInfo
from streams.connect import Broker
from streams.embedded import EmbeddedBroker
from streams.keys import WORKERS
from streams.leases import Leases, WorkerRegistry
from tests.conftest import ON_ONE_NODE
from tests.integration.rig import Rig, text_of
from tests.waiting import until

LEASE_MS = 60_000


@pytest.fixture(params=["valkey", "redis", "cluster"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class World:
    """Workers that only say that they are there."""

    def __init__(self, broker: Broker) -> None:
        self.leases = Leases(broker.commands, LEASE_MS)
        self.registry = WorkerRegistry(broker.commands, self.leases)

    def gateway(self, *entries: ModelEntry, grace_s: float = 60) -> ModelDirectory:
        return ModelDirectory(Models(list(entries)), self.registry, grace_s=grace_s)

    async def comes(self, name: str, model: str = "m", *, ago_s: float = 0, **changes: Any) -> None:
        seen_at_ms = round((time.time() - ago_s) * 1000)
        fields = {"engine": "synthetic", "slots": 1, "is_ready": True, "seen_at_ms": seen_at_ms} | changes
        await self.leases.grant(name, "boot")
        await self.registry.put(WorkerInfo(consumer=name, name=name, model=model, **fields))

    async def dies(self, name: str) -> None:
        await self.leases.release(name)


@pytest.fixture
def world(broker: Broker) -> World:
    return World(broker)


def entry(name: str = "m", **changes: Any) -> ModelEntry:
    return ModelEntry(name=name, engine="synthetic", **changes)


async def names(directory: ModelDirectory) -> list[str]:
    return [served.name for served in await directory.listed()]


async def becomes(directory: ModelDirectory, wanted: Callable[[list[Served]], bool]) -> None:
    """Once the background has looked again."""

    async def is_so() -> bool:
        return wanted(await directory.listed())

    task = asyncio.create_task(directory.run_refreshes())
    try:
        await until(is_so, what="the picture")
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_model_without_a_worker_is_known_and_not_served(world: World) -> None:
    directory = world.gateway(entry())
    assert await directory.listed() == []
    with pytest.raises(ModelNotFound, match="'m' is known here, but no worker serves it") as known:
        await directory.find("m")
    with pytest.raises(ModelNotFound, match="'x' does not exist; this server has: none"):
        await directory.find("x")
    assert (known.value.status, known.value.code, known.value.param) == (404, "model_not_found", "model")


async def test_a_worker_that_came_since_is_found_at_once(world: World) -> None:
    directory = world.gateway(entry(aliases=["default"]))
    with pytest.raises(ModelNotFound):
        await directory.find("m")
    await world.comes("w", context_length=512)
    served = await directory.find("default")
    assert (served.name, served.model, served.is_alive, served.context_length) == ("m", "m", True, 512)
    assert served.aliases == ("default",)


async def test_a_worker_that_still_loads_serves_nothing(world: World) -> None:
    directory = world.gateway(entry())
    await world.comes("w", is_ready=False, loading="reads")
    with pytest.raises(ModelNotFound):
        await directory.find("m")


async def test_what_only_workers_announce_is_served_with_its_adapters(world: World) -> None:
    directory = world.gateway(entry("named"))
    await world.comes("w", "announced", adapters=("blue",), engine="parrot")
    assert await names(directory) == ["announced", "blue"]
    blue = await directory.find("blue")
    assert (blue.model, blue.adapter, blue.engine) == ("announced", "blue", "parrot")


async def test_models_are_listed_in_the_order_of_the_models_file(world: World) -> None:
    directory = world.gateway(entry("z", adapters={"blue": "/b"}), entry("c"))
    for name in ("c", "a", "b"):
        await world.comes(name, name)
    await world.comes("z", "z", adapters=("blue",))
    assert await names(directory) == ["z", "blue", "c", "a", "b"]


async def test_an_adapter_is_there_once_every_worker_of_its_model_has_it(world: World) -> None:
    directory = world.gateway(entry(adapters={"blue": "/blue"}))
    await world.comes("a")
    await world.comes("b", adapters=("blue",))
    with pytest.raises(ModelNotFound, match="'blue' is known here"):
        await directory.find("blue")
    await world.dies("a")
    assert (await directory.find("blue")).adapter == "blue"


async def test_the_models_file_wins_where_an_announced_name_collides(world: World) -> None:
    directory = world.gateway(entry("m", aliases=["taken"], adapters={"blue": "/blue"}))
    await world.comes("w", "m", adapters=("blue",))
    await world.comes("x", "taken")
    await world.comes("y", "blue")
    assert await names(directory) == ["m", "blue"]
    assert (await directory.find("taken")).model == "m"
    assert (await directory.find("blue")).model == "m"


async def test_a_model_whose_last_worker_died_is_there_for_the_grace_time(world: World) -> None:
    directory = world.gateway(entry(), grace_s=1.5)
    await world.comes("w", capabilities=Capabilities(tools=True), context_length=99)
    assert (await directory.find("m")).is_alive
    await world.dies("w")
    await becomes(directory, lambda found: bool(found) and not found[0].is_alive)
    [served] = await directory.listed()
    assert (served.capabilities, served.context_length) == (Capabilities(tools=True), 99)
    assert (await directory.find("m")).is_alive is False
    await becomes(directory, lambda found: not found)
    with pytest.raises(ModelNotFound):
        await directory.find("m")


async def test_a_gateway_that_starts_later_sees_when_a_dead_worker_was_there_last(world: World) -> None:
    await world.comes("w", ago_s=50)
    await world.comes("x", "old", ago_s=70)
    for name in ("w", "x"):
        await world.dies(name)
    assert await names(world.gateway(entry())) == ["m"]


async def test_with_no_grace_time_a_dead_worker_counts_for_nothing(world: World) -> None:
    directory = world.gateway(entry(), grace_s=0)
    await world.comes("w")
    assert (await directory.find("m")).is_alive
    await world.dies("w")
    await becomes(directory, lambda found: not found)


async def test_a_model_that_scales_from_zero_is_always_there(world: World) -> None:
    directory = world.gateway(entry(scale_from_zero=True, adapters={"blue": "/b"}, context_length=8))
    served = await directory.find("m")
    assert (served.capabilities, served.is_alive, served.engine, served.context_length) == (None, False, "synthetic", 8)
    assert (await directory.find("blue")).adapter == "blue"
    check_capabilities(served, GenerationRequest(model="m", logprobs=True), "chat")  # the worker will see


async def test_workers_of_one_model_can_do_what_all_of_them_can(world: World) -> None:
    directory = world.gateway(entry())
    await world.comes("a", capabilities=Capabilities(tools=True, logprobs=True), context_length=100, engine="b")
    await world.comes("b", capabilities=Capabilities(tools=True, images=True), context_length=50, engine="a")
    served = await directory.find("m")
    assert served.capabilities == Capabilities(tools=True)
    assert (served.context_length, served.engine) == (50, "a, b")
    tool = Tool(name="t", description="", parameters={})
    check_capabilities(served, GenerationRequest(model="m", messages=[Message("user", "x")], tools=[tool]), "chat")
    with pytest.raises(
        CapabilityMissing, match=r"'m' \(engine a, b\) can not give log probabilities .*'logprobs'"
    ) as no:
        check_capabilities(served, GenerationRequest(model="m", logprobs=True), "responses")
    assert no.value.param == "top_logprobs"


async def test_the_long_dead_are_forgotten_and_the_others_are_not(world: World, broker: Broker) -> None:
    await world.comes("old", ago_s=1_000)
    await world.comes("recent", ago_s=10)
    await world.comes("living", ago_s=1_000)
    await world.comes("died-loading", ago_s=1_000, is_ready=False)
    for name in ("old", "recent", "died-loading"):
        await world.dies(name)
    directory = world.gateway(entry())

    async def is_pruned() -> bool:
        return set(await broker.commands.hkeys(WORKERS)) == {b"recent", b"living"}

    task = asyncio.create_task(directory.run_refreshes())
    await until(is_pruned)
    task.cancel()
    await asyncio.wait([task])


async def test_who_only_seemed_dead_is_not_forgotten(world: World) -> None:
    await world.comes("w", ago_s=1_000)
    await world.dies("w")
    seen = await world.registry.all()
    await world.comes("w")
    assert await world.registry.prune(seen) == 0
    assert [info.consumer for info in await world.registry.living()] == ["w"]


async def test_an_entry_of_another_version_hides_no_other(world: World, broker: Broker) -> None:
    await world.comes("w")
    await broker.commands.hset(WORKERS, "future", b'{"v": 9, "consumer": 5}')
    assert await names(world.gateway()) == ["m"]


@ON_ONE_NODE
async def test_while_the_broker_is_away_the_last_picture_holds_and_no_grace_passes(
    server: EmbeddedBroker, broker: Broker, world: World
) -> None:
    directory = world.gateway(entry(), grace_s=4)
    await world.comes("w")
    assert (await directory.find("m")).is_alive
    await server.stop()
    task = asyncio.create_task(directory.run_refreshes())
    began = time.monotonic()
    await until(lambda: time.monotonic() - began > 5)  # longer than the grace
    assert (await directory.find("m")).is_alive
    with pytest.raises(BrokerError):
        await directory.find("x")
    await server.start()
    await broker.commands.flushall()
    await becomes(directory, lambda found: [served.is_alive for served in found] == [False])
    task.cancel()
    await asyncio.wait([task])


async def test_many_who_ask_for_what_is_not_there_share_a_look(world: World, broker: Broker) -> None:
    directory = world.gateway(entry())
    looks = 0
    look = world.registry.all

    async def counted() -> Any:
        nonlocal looks
        looks += 1
        return await look()

    world.registry.all = counted  # type: ignore[method-assign]
    results = await asyncio.gather(*(directory.find("x") for _ in range(50)), return_exceptions=True)
    assert all(isinstance(result, ModelNotFound) for result in results)
    assert looks <= 2


@ON_ONE_NODE
async def test_a_request_for_what_only_a_worker_announced_finds_its_queue(broker: Broker) -> None:
    rig = Rig(broker, entry("announced"))
    intake = rig.intake_for(Models([entry("other")]))
    async with rig.worker():
        prepared = rig.prepare(3)
        await intake.check_room("announced", "interactive")
        await intake.accept(prepared)
        assert (await rig.ended(prepared.id)).text == text_of(3)


async def test_a_model_is_listed_as_soon_as_its_worker_is_ready(world: World) -> None:
    directory = world.gateway(entry())
    assert await names(directory) == []
    await world.comes("w")
    assert await names(directory) == ["m"]
