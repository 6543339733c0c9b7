"""Carries the schedule out: kills, stops and drains, and waits until the streams go on."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections import Counter

from benchmarks.chaos.faults import Action, Fault, Target, count
from benchmarks.chaos.load import Load
from benchmarks.chaos.lookout import Lookout
from benchmarks.chaos.schedule import Plan, Step
from benchmarks.chaos.stack import ChaosStack
from benchmarks.chaos.waiting import until
from schemas.workers import WorkerInfo

_BACK_LIMIT_S = 40.0
_STAFF_LIMIT_S = 30.0
_GO_ON_LIMIT_S = 10.0
_SETTLE_S = 0.5
_WORKER, _GATEWAY, _ARCHIVER, _BROKER = "inference-", "ingress-", "archiver-", "broker"


class Director:
    """One run's faults."""

    def __init__(
        self, stack: ChaosStack, load: Load, lookout: Lookout, plan: Plan, rng: random.Random, *, lease_s: float
    ) -> None:
        self.faults: list[Fault] = []
        self._stack = stack
        self._load = load
        self._lookout = lookout
        self._plan = plan
        self._rng = rng
        self._lease_s = lease_s
        self._hit_at: Counter[str] = Counter()
        """When each process was last struck: those that were left alone come first."""

    async def run(self, limit_s: float) -> None:
        """Every step, then more of what has not yet struck often enough, within the limit."""
        deadline = time.monotonic() + limit_s
        hunting = asyncio.create_task(self._hunt_archivers())
        try:
            for step in self._plan.steps(self._rng):
                await self._take(step)
            while (missing := self._missing_step()) is not None and time.monotonic() < deadline:
                await self._take(missing)
            await until(hunting.done, deadline - time.monotonic())
        finally:
            hunting.cancel()
            await asyncio.gather(hunting, return_exceptions=True)
            for name in self._stack.pids():
                self._stack.send(name, signal.SIGCONT)

    @property
    def is_complete(self) -> bool:
        """As many counted kills as planned, of every target."""
        archivers = 0 if self._plan.spares_storage else self._plan.kills
        return count(self.faults, Target.ARCHIVER, Action.KILL) >= archivers and self._missing_step() is None

    def _missing_step(self) -> Step | None:
        def missing(target: Target) -> bool:
            return count(self.faults, target, Action.KILL) < self._plan.kills

        if missing(Target.WORKER) or missing(Target.GATEWAY):
            return Step.WORKERS
        return Step.BROKER if not self._plan.spares_storage and missing(Target.BROKER) else None

    async def _take(self, step: Step) -> None:
        print(f"… {step}", file=sys.stderr, flush=True)
        match step:
            case Step.WORKERS:
                await self._kill_workers()
            case Step.ZOMBIE:
                await self._make_zombie()
            case Step.PAUSES:
                await asyncio.gather(self._pause_gateway(), self._pause_archiver())
            case Step.BROKER:
                await self._kill_broker()
            case Step.BROKER_PAUSE:
                await self._pause_broker()
            case Step.CALM:
                await asyncio.sleep(self._lease_s * 1.2)

    # Workers

    async def _kill_workers(self) -> None:
        """Two at once, and gateways while the others wait for the leases to run out: these do not touch each other."""
        workers = await self._busy_workers(3)
        held = await self._lookout.held()
        chosen = workers[: min(2, len(workers) - 1)]
        struck = [self._strike_worker(w, held, Action.KILL, signal.SIGKILL) for w in chosen]
        await asyncio.gather(self._until_taken_over(struck), self._kill_gateways(2))

    async def _make_zombie(self) -> None:
        """One wakes up when others have its responses; another drains; at least one does neither."""
        workers = await self._busy_workers(3)
        if len(workers) < 2:
            return
        held = await self._lookout.held()
        workers.sort(key=lambda worker: -held[worker.consumer])  # many late writes are the harder case
        zombie = self._strike_worker(workers[0], held, Action.ZOMBIE, signal.SIGSTOP)
        drained = [self._strike_worker(w, held, Action.DRAIN, signal.SIGTERM) for w in workers[1:2] if len(workers) > 2]
        await asyncio.sleep(self._lease_s * self._rng.uniform(1.05, 1.2) + 1.0)
        self._stack.send(zombie.name, signal.SIGCONT)
        zombie.over_at = time.monotonic()
        await self._until_taken_over([zombie, *drained])

    async def _busy_workers(self, wanted: int) -> list[WorkerInfo]:
        """Living workers that generate, the one that was left alone longest first. At least as many as
        wanted, where so many are there before the wait is over."""
        found: list[WorkerInfo] = []

        async def are_there() -> bool:
            pids = set(self._stack.pids().values())
            held = await self._lookout.held()
            found[:] = [w for w in await self._lookout.workers() if w.pid in pids and held[w.consumer] > 0]
            return len(found) >= min(wanted, self._stack.workers)

        await until(are_there, _STAFF_LIMIT_S, 0.1)
        self._rng.shuffle(found)
        return sorted(found, key=lambda worker: self._hit_at[worker.name])

    def _strike_worker(self, worker: WorkerInfo, held: Counter[str], action: Action, number: signal.Signals) -> Fault:
        fault = self._note(Target.WORKER, action, worker.name, held[worker.consumer])
        fault.consumer = worker.consumer
        if self._stack.send(worker.name, number) != worker.pid:
            fault.struck = 0  # it was another one by now
        return fault

    async def _until_taken_over(self, faults: list[Fault]) -> None:
        consumers = [fault.consumer for fault in faults]

        async def are_free() -> bool:
            held = await self._lookout.held()
            return bool(held) and not any(held[consumer] for consumer in consumers)

        await until(are_free, self._lease_s * 3 + 5, 0.1)
        for fault in faults:
            fault.over_at = fault.over_at or time.monotonic()
        await asyncio.sleep(_SETTLE_S)

    # Gateways

    async def _kill_gateways(self, most: int) -> None:
        for _ in range(most):
            if count(self.faults, Target.GATEWAY, Action.KILL) >= self._plan.kills:
                return
            await asyncio.sleep(self._rng.uniform(0.2, 1.5))
            name = self._busy_gateway()
            if name:
                fault = self._strike_gateway(name, Action.KILL, signal.SIGKILL)
                fault.over_at = time.monotonic()

    async def _pause_gateway(self) -> None:
        name = self._busy_gateway()
        if not name:
            return
        fault = self._strike_gateway(name, Action.PAUSE, signal.SIGSTOP)
        await asyncio.sleep(self._rng.uniform(0.5, 3.0))
        self._stack.send(name, signal.SIGCONT)
        fault.over_at = time.monotonic()

    def _busy_gateway(self) -> str:
        """One with open streams, if another gateway lives."""
        alive = self._stack.named(_GATEWAY)
        busy = [name for name in alive if self._load.open_at(self._stack.port_of(name))]
        if len(alive) < 2 or not busy:
            return ""
        self._rng.shuffle(busy)
        return min(busy, key=lambda name: self._hit_at[name])

    def _strike_gateway(self, name: str, action: Action, number: signal.Signals) -> Fault:
        port = self._stack.port_of(name)
        fault = self._note(Target.GATEWAY, action, name, self._load.open_at(port))
        fault.port = port
        if not self._stack.send(name, number):
            fault.struck = 0
        return fault

    # Archivers: they touch nothing that a client sees, so they are killed all the time

    async def _hunt_archivers(self) -> None:
        while not self._plan.spares_storage and count(self.faults, Target.ARCHIVER, Action.KILL) < self._plan.kills:
            await asyncio.sleep(self._rng.uniform(1.0, 4.0))
            if name := self._any_archiver():
                fault = self._note(Target.ARCHIVER, Action.KILL, name, self._load.running)
                pid = self._stack.send(name, signal.SIGKILL)
                await self._until_replaced(name, pid)
                fault.over_at = time.monotonic()

    async def _pause_archiver(self) -> None:
        if name := self._any_archiver():
            fault = self._note(Target.ARCHIVER, Action.PAUSE, name, self._load.running)
            self._stack.send(name, signal.SIGSTOP)
            await asyncio.sleep(self._rng.uniform(0.5, 3.0))
            self._stack.send(name, signal.SIGCONT)
            fault.over_at = time.monotonic()

    def _any_archiver(self) -> str:
        names = self._stack.named(_ARCHIVER)
        return self._rng.choice(names) if names else ""

    # The broker

    async def _kill_broker(self) -> None:
        fault = self._note(Target.BROKER, Action.KILL, _BROKER, self._load.running)
        pid = self._stack.send(_BROKER, signal.SIGKILL)
        await self._until_replaced(_BROKER, pid)
        await self._until_streams_go_on(fault)

    async def _pause_broker(self) -> None:
        fault = self._note(Target.BROKER, Action.PAUSE, _BROKER, self._load.running)
        self._stack.send(_BROKER, signal.SIGSTOP)
        await asyncio.sleep(self._rng.uniform(0.5, 3.0))
        self._stack.send(_BROKER, signal.SIGCONT)
        await self._until_streams_go_on(fault)

    async def _until_streams_go_on(self, fault: Fault) -> None:
        fault.over_at = time.monotonic()
        await until(lambda: not self._load.silent_since(fault.at, fault.over_at), _GO_ON_LIMIT_S)
        await asyncio.sleep(self._rng.uniform(0.3, 1.2))

    async def _until_replaced(self, name: str, pid: int) -> None:
        await until(lambda: self._stack.pids().get(name, pid) != pid, _BACK_LIMIT_S)

    def _note(self, target: Target, action: Action, name: str, struck: int) -> Fault:
        fault = Fault(target, action, name, time.monotonic(), struck)
        self.faults.append(fault)
        self._hit_at[name] = int(fault.at * 1000)
        return fault
