"""`openchat status`: what it counts is what is there."""

from __future__ import annotations

import msgspec
import pytest

from openchat.status import Rates, Snapshot, look, rates_between, render
from schemas.ids import new_response_id
from schemas.requests import FinishedEntry
from streams.connect import Broker
from streams.finished import FinishedStream
from tests.integration.rig import SETTINGS, Rig, synthetic
from tests.waiting import until


@pytest.fixture(params=["valkey", "redis", "cluster"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_an_empty_broker_is_all_zeros(broker: Broker) -> None:
    snapshot = await look(SETTINGS, broker)
    assert (snapshot.workers, snapshot.finished, snapshot.open, snapshot.dead_letters) == ([], 0, 0, 0)
    text = render(snapshot, rates_between(snapshot, snapshot))
    assert "none is alive" in text
    assert "synthetic  interactive  0        0     -" in text


async def test_waiting_held_open_and_lag_are_told_apart(broker: Broker) -> None:
    rig = Rig(broker)
    before = await look(SETTINGS, broker)
    asked = [await rig.ask(3000) for _ in range(5)]
    async with rig.worker(engine=synthetic(tokens_per_second=50, capacity=2)):

        async def busy() -> Snapshot | None:
            snapshot = await look(SETTINGS, broker)
            return snapshot if snapshot.workers and snapshot.workers[0].tokens_per_s > 0 else None

        snapshot = await until(busy, what="a worker that generates")
        assert snapshot is not None
        (worker,) = snapshot.workers
        assert (worker.slots, worker.running) == (2, 2)
        assert 20 < worker.tokens_per_s < 200
        lane = snapshot.queues["synthetic"]["interactive"]
        assert (lane.waiting, lane.held, lane.added) == (3, 2, 5)
        assert lane.oldest_at_ms is not None
        assert abs(lane.oldest_at_ms - snapshot.at_ms) < 30_000
        assert snapshot.open == len(asked)
        await FinishedStream(broker.commands).send(FinishedEntry(id=new_response_id(), status="completed"))
        after = await look(SETTINGS, broker)
        assert (after.finished, after.archive_lag) == (1, 1)
        rates = rates_between(before, after)
        elapsed_s = (after.at_ms - before.at_ms) / 1000
        assert rates.requests == pytest.approx(5 / elapsed_s, rel=0.1)
        text = render(after, rates)
        assert worker.consumer in text
        assert "5 open, 1 to archive, 0 dead letters" in text


def test_a_counter_that_began_anew_is_no_negative_rate() -> None:
    many = Snapshot(at_ms=0, workers=[], queues={}, finished=10, archive_lag=0, open=0, dead_letters=0)
    few = msgspec.structs.replace(many, finished=1, at_ms=1000)
    assert rates_between(many, few) == Rates(requests=0, finished=0, tokens=0)
