"""The response log under any order of events, over Valkey 9.1 and Debian's Redis 7 (docs/protocol.md, 1 to 4 and 6).

Hypothesis makes up what workers, gateways and readers do, in which order the broker gets to see
it, which answers are lost, who dies, and when a replica that lags takes over.
`promises.py` says what must hold after every step.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from importlib import resources
from typing import Any, TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from streams.connect import Broker
from streams.embedded import EmbeddedBroker
from tests.conftest import REDIS_BINARY, need
from tests.property.promises import Promises
from tests.property.world import LOGS, MOST_LAG, READERS, WORKERS, World

Value = TypeVar("Value")

SETTINGS = settings(
    max_examples=int(os.environ.get("PROPERTY_EXAMPLES", "100")),  # about 20 s for each broker
    stateful_step_count=40,
    deadline=None,  # an example takes as long as its broker
    derandomize=os.environ.get("CI") == "true",
    database=None,
    print_blob=True,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)


class Servers:
    """A loop for all examples, and one broker with its connections."""

    def __init__(self, runner: asyncio.Runner, broker: Broker) -> None:
        self.runner = runner
        self.broker = broker


@pytest.fixture(scope="module", params=["valkey", "redis"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """One server for all examples: Valkey 9.1 or Debian's Redis 7."""
    if request.param == "redis":
        need(REDIS_BINARY, "redis-server")
    binary = REDIS_BINARY if request.param == "redis" else None
    with asyncio.Runner() as runner:
        server = EmbeddedBroker(tmp_path_factory.mktemp("broker"), binary=binary)
        runner.run(server.start())
        broker = Broker(server.url, timeout_s=5.0, connections=16)
        try:
            runner.run(load_scripts(broker))
            yield Servers(runner, broker)
        finally:
            runner.run(broker.close())
            runner.run(server.stop())


async def load_scripts(broker: Broker) -> None:
    """So that no example needs a second call because it was the first."""
    for file in resources.files("streams").joinpath("lua").iterdir():
        await broker.commands.script_load(file.read_bytes())


def pick(choices: Callable[[Any], list[int]]) -> st.SearchStrategy[int]:
    """One of what the machine has to offer now; the rule's precondition says that there is one."""
    return st.runner().flatmap(lambda machine: st.sampled_from(choices(machine)))


SOME_LOG = st.sampled_from([0, 0, 0, *range(1, LOGS)])  # most of it meets at one
SELDOM = st.sampled_from([False, False, False, True])
SOME_WORKER = st.integers(0, WORKERS - 1)


def needs(*choices: Callable[[Any], list[int]]) -> Callable[[Any], Any]:
    """A rule that `pick`s from all of these."""
    return precondition(lambda machine: all(choose(machine) for choose in choices))


class LogMachine(RuleBasedStateMachine):
    """Each rule is one step; numbers name workers, logs and readers, so that a failure can be read."""

    def __init__(self, site: Servers) -> None:
        super().__init__()
        self._runner = site.runner
        self._is_broken = False
        self._step(site.broker.commands.flushdb())
        self.world = self._step(self._new_world(site.broker))
        self.promises = Promises(self.world)
        self._most_failovers = 0

    @staticmethod
    async def _new_world(broker: Broker) -> World:
        return World(broker)

    def _step(self, coroutine: Coroutine[Any, Any, Value]) -> Value:
        try:
            return self._runner.run(coroutine)
        except BaseException:
            self._is_broken = True
            raise

    # What can be chosen at the moment.

    def _acceptable(self) -> list[int]:
        known = self.world.existing | self.world.deleted
        return [r for r, response_id in enumerate(self.world.ids) if response_id not in known]

    def _open(self) -> list[int]:
        is_open = self.world.existing - self.world.sealed
        return [r for r, response_id in enumerate(self.world.ids) if response_id in is_open]

    def _mostly_open(self) -> list[int]:
        return [*range(LOGS), *self._open() * 3]

    def _owners(self) -> list[int]:
        return [w for w, worker in enumerate(self.world.workers) if worker.owned()]

    def _calling_workers(self) -> list[int]:
        return [w for w, worker in enumerate(self.world.workers) if worker.wire.call is not None]

    def _calling(self) -> list[int]:
        return [i for i, actor in enumerate(self.world.actors) if actor.wire.call is not None]

    def _idle_cancellers(self) -> list[int]:
        return [i for i, canceller in enumerate(self.world.cancellers) if not canceller.is_busy]

    def _orphans(self) -> list[int]:
        return list(range(len(self.world.orphans)))

    def _sealed(self) -> list[int]:
        return [r for r, response_id in enumerate(self.world.ids) if response_id in self.world.sealed]

    def _failovers(self) -> list[int]:
        return list(range(self.world.epoch, self._most_failovers))

    # Gateways accept, cancel and read.

    @initialize(most_failovers=st.integers(0, 2), logs=st.integers(1, LOGS))
    def begin(self, most_failovers: int, logs: int) -> None:
        self._most_failovers = most_failovers
        for response_id in self.world.ids[:logs] * 2:
            self._step(self.world.accept(response_id))

    @needs(_acceptable)
    @rule(log=pick(_acceptable))
    def accept(self, log: int) -> None:
        """Late, or again after it was lost."""
        self._step(self.world.accept(self.world.ids[log]))

    @needs(_idle_cancellers, _open)
    @rule(canceller=pick(_idle_cancellers), log=pick(_open), is_quick=st.booleans())
    def cancel(self, canceller: int, log: int, is_quick: bool) -> None:
        """Quick: nothing comes between the look at the log and the end."""
        self._step(self.world.cancel(self.world.cancellers[canceller], self.world.ids[log]))
        if is_quick:
            self._step(self.world.settle(self.world.cancellers[canceller]))

    @needs(_idle_cancellers, _owners)
    @rule(canceller=pick(_idle_cancellers), worker=pick(_owners))
    def cancel_beside_writer(self, canceller: int, worker: int) -> None:
        """What the canceller has read is not the end of the log any more."""
        ending, writing = self.world.cancellers[canceller], self.world.workers[worker]
        attempt = writing.owned()[0]
        self._step(self.world.cancel(ending, attempt.response_id))
        self._step(self.world.write(attempt, 1))
        self._step(self.world.settle(writing))
        self._step(self.world.settle(ending))

    @rule(
        how=st.sampled_from(["open", "poll", "poll", "check", "reconnect"]),
        reader=st.integers(0, READERS - 1),
        log=SOME_LOG,
    )
    def read(self, how: str, reader: int, log: int) -> None:
        """The log, the bus, the log after a silence, or both after a lost connection."""
        readers, response_id = self.world.readers, self.world.ids[log]
        if reader < len(readers) and how != "open":
            self._step(getattr(readers[reader], how)())
        elif response_id in self.world.existing and len(readers) < READERS:
            self._step(self.world.open_reader(response_id))

    # Workers.

    @rule(worker=SOME_WORKER, log=pick(_mostly_open), is_blind=SELDOM, is_quick=st.booleans())
    def take(self, worker: int, log: int, is_blind: bool, is_quick: bool) -> None:
        """Blind: without a look at the log, as what nobody has taken; quick: until text is in it."""
        chosen, response_id = self.world.workers[worker], self.world.ids[log]
        if chosen.current(response_id) is None:
            self._step(self.world.take(chosen, response_id, is_blind=is_blind))
        if is_quick:
            self._step(self.world.settle(chosen))
            attempt = chosen.current(response_id)
            if attempt is not None and attempt.owns:
                self._step(self.world.write(attempt, 2))
                self._step(self.world.settle(chosen))

    @needs(_owners)
    @rule(worker=pick(_owners), count=st.integers(1, 3), is_quick=st.booleans())
    def write(self, worker: int, count: int, is_quick: bool) -> None:
        """In all that it believes to own; quick: until it is in the logs."""
        chosen = self.world.workers[worker]
        for attempt in chosen.owned():
            self._step(self.world.write(attempt, count))
        if is_quick:
            self._step(self.world.settle(chosen))

    @needs(_owners)
    @rule(worker=pick(_owners), count=st.integers(1, 3), cut=st.booleans())
    def write_and_lose(self, worker: int, count: int, cut: bool) -> None:
        """The broker has it, and the worker does not know; cut: it learns that its connection broke."""
        chosen = self.world.workers[worker]
        self._step(self.world.settle(chosen))
        for attempt in chosen.owned()[:1]:
            self._step(self.world.write(attempt, count))
            self._step(self.world.run(chosen.wire))
            if cut:
                self._step(self.world.lose(chosen.wire))

    @needs(_owners)
    @rule(worker=pick(_owners), how=st.sampled_from(["finish", "hand_back", "drop", "kill"]), is_quick=st.booleans())
    def stop_working(self, worker: int, how: str, is_quick: bool) -> None:
        chosen = self.world.workers[worker]
        if how == "kill":
            self._step(self.world.kill(worker))
            return
        self._step(self.world.do(getattr(chosen.owned()[0], how)))
        if is_quick:
            self._step(self.world.settle(chosen))

    @needs(_calling_workers)
    @rule(worker=pick(_calling_workers))
    def kill_in_flight(self, worker: int) -> None:
        self._step(self.world.kill(worker))

    # The network.

    @needs(_calling)
    @rule(actor=pick(_calling), how=st.sampled_from(["run", "answer", "settle"]))
    def go_on(self, actor: int, how: str) -> None:
        """The broker runs a call, its caller gets the answer, or all of its calls are done."""
        self._step(self.world.go_on(self.world.actors[actor], how))

    @needs(_calling)
    @rule(actor=pick(_calling), is_run=st.booleans())
    def lose(self, actor: int, is_run: bool) -> None:
        """A call or its answer is lost: the caller sends it again."""
        wire = self.world.actors[actor].wire
        if is_run:
            self._step(self.world.run(wire))
        self._step(self.world.lose(wire))

    @needs(_orphans)
    @rule(which=pick(_orphans))
    def run_late(self, which: int) -> None:
        """The broker runs what its sender gave up long ago."""
        self._step(self.world.run_late(which))

    # The broker.

    @needs(_sealed)
    @rule(log=pick(_sealed))
    def expire(self, log: int) -> None:
        self._step(self.world.delete(self.world.ids[log]))

    @needs(_failovers)
    @rule(back=st.integers(1, MOST_LAG))
    def fail_over(self, back: int) -> None:
        """A replica that lags some steps takes over; what came since is lost."""
        self._step(self.world.fail_over(back))

    @needs(_failovers, _owners)
    @rule(worker=pick(_owners))
    def fail_over_under_writer(self, worker: int) -> None:
        """It loses what a worker was just told that it is written; the worker goes on."""
        writing = self.world.workers[worker]
        for lose in (True, False):
            for attempt in writing.owned():
                self._step(self.world.write(attempt, 1))
            self._step(self.world.settle(writing))
            if lose:
                self._step(self.world.fail_over(1))

    # What must hold.

    @invariant()
    def holds(self) -> None:
        self._step(self.promises.check())
        self._step(self.world.replicate())

    def teardown(self) -> None:
        try:
            if not self._is_broken:
                self._step(self.promises.check_end())
        finally:
            self._runner.run(self.world.close())


@pytest.mark.timeout(600)  # finding takes seconds, making what was found small takes minutes
def test_a_response_log_keeps_its_promises_whatever_happens(site: Servers) -> None:
    run_state_machine_as_test(lambda: LogMachine(site), settings=SETTINGS)
