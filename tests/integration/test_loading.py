"""What a worker says and does while its engine loads."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable

import pytest
from prometheus_client import REGISTRY

from consumers.inference import InferenceWorker
from engine.base import Delta, Generation, Progress
from engine.synthetic.engine import SyntheticEngine
from openchat.status import look, rates_between, render
from schemas.capabilities import Capabilities
from schemas.errors import BrokerError, EngineDead, SettingsError
from schemas.ids import ResponseId
from schemas.models import ModelEntry
from schemas.workers import WorkerInfo
from streams.connect import Broker
from streams.embedded import EmbeddedBroker
from streams.leases import Leases, WorkerRegistry
from tests.integration.rig import SETTINGS, Rig, synthetic, text_of
from tests.waiting import until

LABELS = {"model": "loads", "engine": "synthetic"}


class SlowEngine(SyntheticEngine):
    """Loads until it is told to end, and knows what it can do only then."""

    context_length = 0

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(tokens_per_second=100, ttft_ms=0, capacity=1)
        self.may_end = asyncio.Event()
        self._error = error
        self.was_cancelled = False

    async def start(self, progress: Progress) -> None:
        await asyncio.to_thread(progress, "reads weights: 3 of 7")
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        if self._error is not None:
            raise self._error
        self.capacity = 3
        self.context_length = 77
        self.capabilities = Capabilities(continues=True, logprobs=True)

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        assert self.may_end.is_set(), "asked before it was loaded"
        async for delta in super().generate(generation):
            yield delta


def rig_of(broker: Broker) -> Rig:
    return Rig(broker, ModelEntry(name="loads", engine="synthetic", adapters={"blue": "/blue"}))


def registry_of(broker: Broker) -> WorkerRegistry:
    return WorkerRegistry(broker.commands, Leases(broker.commands, SETTINGS.lease_ms))


async def only_worker(broker: Broker, wanted: Callable[[WorkerInfo], bool]) -> WorkerInfo:
    async def find() -> WorkerInfo | None:
        return next(filter(wanted, await registry_of(broker).living()), None)

    found = await until(find, what="the worker in the registry")
    assert found is not None
    return found


def metric(name: str) -> float | None:
    return REGISTRY.get_sample_value(name, LABELS)


async def test_a_worker_is_seen_while_it_loads_and_reads_only_when_it_is_ready(broker: Broker) -> None:
    rig, engine = rig_of(broker), SlowEngine()
    asked = await rig.ask(5)
    async with rig.worker(engine=engine) as worker:
        loading = await only_worker(broker, lambda info: info.loading.startswith("reads"))
        assert (loading.is_ready, loading.loading, loading.slots) == (False, "reads weights: 3 of 7", 0)
        assert metric("openchat_engine_loading") == 1
        assert (await rig.queue.state("interactive")).waiting == 1
        snapshot = await look(SETTINGS, broker)
        assert "loading  reads weights: 3 of 7" in render(snapshot, rates_between(snapshot, snapshot))
        engine.may_end.set()
        assert (await rig.ended(asked.id)).text == text_of(5)
        ready = await only_worker(broker, lambda info: info.is_ready)
        assert ready.consumer == worker.consumer
        assert (ready.slots, ready.context_length, ready.adapters, ready.loading) == (3, 77, ("blue",), "")
        assert ready.capabilities == Capabilities(continues=True, logprobs=True)
        assert metric("openchat_engine_loading") == 0
        assert metric("openchat_engine_slots") == 3
        assert metric("openchat_engine_start_seconds") == pytest.approx(0, abs=30)
    assert await registry_of(broker).living() == []


async def test_a_worker_that_loads_for_longer_than_its_lease_stays_the_same(broker: Broker) -> None:
    rig, engine = rig_of(broker), SlowEngine()
    async with rig.worker(engine=engine) as worker:
        first = await only_worker(broker, lambda info: True)
        last = await only_worker(broker, lambda info: info.seen_at_ms > first.seen_at_ms + 2 * SETTINGS.lease_ms)
        assert (last.consumer, last.is_ready) == (first.consumer, False)
        engine.may_end.set()
        await only_worker(broker, lambda info: info.is_ready)
        assert worker.consumer == first.consumer


async def test_told_to_stop_a_worker_does_not_wait_for_its_engine(broker: Broker) -> None:
    rig, engine = rig_of(broker), SlowEngine()
    async with rig.worker(engine=engine):
        await only_worker(broker, lambda info: True)
    assert engine.was_cancelled
    assert await registry_of(broker).all() == [], "what never was ready leaves no trace"


@pytest.mark.parametrize("error", [EngineDead("no memory left"), SettingsError("no such file")])
async def test_an_engine_that_does_not_start_ends_its_worker(broker: Broker, error: Exception) -> None:
    engine = SlowEngine(error)
    engine.may_end.set()
    rig = rig_of(broker)
    worker = InferenceWorker(SETTINGS, rig.model, engine, broker, name="w", pid=os.getpid())
    with pytest.raises(type(error), match=str(error)):
        await worker.run(asyncio.Event())
    assert await registry_of(broker).all() == []


async def test_an_engine_that_starts_while_the_broker_is_away_serves_when_it_is_back(
    server: EmbeddedBroker, broker: Broker
) -> None:
    rig = rig_of(broker)
    await server.stop()
    async with rig.worker(engine=synthetic()):
        await until(lambda: metric("openchat_engine_loading") == 0)
        await server.start()
        asked = await until(lambda: _asked(rig), what="a request accepted")
        assert asked is not None
        assert (await rig.ended(asked)).text == text_of(3)


async def _asked(rig: Rig) -> ResponseId | None:
    with contextlib.suppress(BrokerError):
        return (await rig.ask(3)).id
    return None
