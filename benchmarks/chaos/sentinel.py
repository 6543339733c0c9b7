"""Failovers: the primary of a Sentinel trio is killed under load, several times.

Replication is asynchronous, so a failover may lose the last writes of the primary. Workers and gateways put back
what they still have; what nobody has any more is the documented limit. It is counted apart, never hidden.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from pathlib import Path

from benchmarks.chaos.faults import Action, Fault, Target
from benchmarks.chaos.load import Load
from benchmarks.chaos.waiting import until
from tests import brokers
from tests.ports import HOST

_BACK_LIMIT_S = 150.0
"""A Sentinel that has tried in vain waits twice its failover-timeout, a minute, before it tries again."""
_DOWN_AFTER_MS = 5000
"""As broker/sentinel.conf has it. With one second, three busy Sentinels on two cores take living nodes for dead."""
_RUN_UP_S = 3.0
"""Load between two failovers."""


class Trio:
    """Two data nodes and three Sentinels of the bundled server."""

    def __init__(self, folder: Path) -> None:
        self._trio = brokers.SentinelTrio(folder, down_after_ms=_DOWN_AFTER_MS)

    @property
    def url(self) -> str:
        return self._trio.url

    def start(self) -> None:
        self._trio.start()

    def stop(self) -> None:
        self._trio.stop()

    def kill_primary(self) -> brokers.Node:
        """Returns the node that died."""
        primary = self._trio.primary
        primary.send(signal.SIGKILL)
        return primary

    def wait_for_new_primary(self, dead: brokers.Node) -> None:
        """Until the Sentinels have made the other one primary."""
        heir = self._other(dead)
        brokers.wait_for(lambda: heir.info("replication")["role"] == "master", "a new primary", _BACK_LIMIT_S)

    def bring_back(self, dead: brokers.Node) -> None:
        """As a replica; returns when one is in sync and every Sentinel would choose it."""
        heir = self._other(dead)
        dead.stop()
        dead.start()
        # Sentinels would do this too, after a while
        dead.client.replicaof(HOST, heir.port)
        brokers.wait_for(self._is_in_sync, "a replica in sync", _BACK_LIMIT_S)
        brokers.wait_for(self._is_complete, "the Sentinels to see it", _BACK_LIMIT_S)

    def _is_in_sync(self) -> bool:
        """Either way round: Sentinels may fail over once more by themselves."""
        return any(node.info("replication").get("master_link_status") == "up" for node in self._trio.data)

    def _is_complete(self) -> bool:
        return all(self._sees_replica(sentinel) for sentinel in self._trio.sentinels)

    def _sees_replica(self, sentinel: brokers.Node) -> bool:
        replicas = sentinel.client.sentinel_slaves(brokers.SERVICE)
        return len(replicas) == 1 and replicas[0]["flags"] == "slave" and replicas[0]["master-link-status"] == "ok"

    def _other(self, node: brokers.Node) -> brokers.Node:
        return next(other for other in self._trio.data if other is not node)


class FailoverDirector:
    """Kills one primary after the other."""

    def __init__(self, trio: Trio, load: Load, rng: random.Random, *, failovers: int) -> None:
        self.faults: list[Fault] = []
        self._trio = trio
        self._load = load
        self._rng = rng
        self._failovers = failovers

    @property
    def is_complete(self) -> bool:
        return sum(fault.is_counted for fault in self.faults) >= self._failovers

    async def run(self, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while not self.is_complete and time.monotonic() < deadline:
            await asyncio.sleep(_RUN_UP_S + self._rng.uniform(0, 1))
            print("… the primary killed", file=sys.stderr, flush=True)
            await self._fail_over()

    async def _fail_over(self) -> None:
        fault = Fault(Target.PRIMARY, Action.KILL, "primary", time.monotonic(), self._load.running)
        self.faults.append(fault)
        dead = await asyncio.to_thread(self._trio.kill_primary)
        await asyncio.to_thread(self._trio.wait_for_new_primary, dead)
        fault.over_at = time.monotonic()
        await until(lambda: not self._load.silent_since(fault.at, fault.over_at), _BACK_LIMIT_S)
        await asyncio.to_thread(self._trio.bring_back, dead)
