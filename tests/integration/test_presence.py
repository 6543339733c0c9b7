"""When a worker may claim, and when it needs a new name."""

from __future__ import annotations

import asyncio
import os
import signal

from consumers.presence import Presence
from schemas.workers import WorkerInfo
from streams.connect import Broker
from streams.embedded import EmbeddedBroker
from streams.keys import lease_key
from streams.leases import Leases, WorkerRegistry
from tests.waiting import until


def presence_of(broker: Broker) -> Presence:
    leases = Leases(broker.commands, 600)
    info = WorkerInfo(consumer="", name="w", model="m", engine="synthetic", slots=1)
    return Presence(leases, WorkerRegistry(broker.commands, leases), info)


async def test_a_worker_claims_only_after_a_whole_lease_of_answers(server: EmbeddedBroker, broker: Broker) -> None:
    impatient = Broker(server.url, timeout_s=0.1, connections=4)
    presence, stop, lost = presence_of(impatient), asyncio.Event(), asyncio.Event()
    await presence.begin()
    assert not presence.may_claim()
    renewals = asyncio.create_task(presence.run_renewals(stop, lost.set))
    await until(presence.may_claim)
    name = presence.consumer
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    await until(lambda: not presence.may_claim())
    os.kill(server.pid, signal.SIGCONT)
    await broker.commands.delete(lease_key(name))  # as if it had run out while the broker was away
    await until(presence.may_claim)
    assert presence.consumer == name
    assert not lost.is_set()
    stop.set()
    await renewals
    await impatient.close()


async def test_a_lease_that_is_gone_beside_a_healthy_broker_was_lost(broker: Broker) -> None:
    presence, stop, lost = presence_of(broker), asyncio.Event(), asyncio.Event()
    await presence.begin()
    renewals = asyncio.create_task(presence.run_renewals(stop, lost.set))
    name = presence.consumer
    await broker.commands.delete(lease_key(name))
    async with asyncio.timeout(5):
        await lost.wait()
    stop.set()
    await renewals
    assert presence.consumer != name
    assert await broker.commands.exists(lease_key(presence.consumer))
    assert await broker.commands.hkeys("oc:workers") == [presence.consumer.encode()]
    await presence.end()
    assert not await broker.commands.exists(lease_key(presence.consumer))
    assert await broker.commands.hlen("oc:workers") == 0
