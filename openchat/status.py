"""`openchat status`: the live pipeline as a table."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import msgspec

from openchat.table import table
from schemas.errors import OpenChatError
from schemas.models import load_models
from schemas.requests import LANES
from schemas.settings import Settings
from schemas.workers import WorkerInfo
from streams.connect import Broker, connect_broker
from streams.dead import DeadLetters
from streams.finished import FinishedStream
from streams.keys import ARCHIVER_GROUP
from streams.leases import Leases, WorkerRegistry
from streams.logs import ResponseLogs
from streams.queue import QueueState, RequestQueue

_PROGRESS = 60
"""Characters of a loading engine's last line."""
_CLEAR = "\x1b[H\x1b[2J"


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at one moment."""

    at_ms: int
    workers: list[WorkerInfo]
    queues: dict[str, dict[str, QueueState]]
    """Model → lane → state."""
    finished: int
    """Responses that ever ended."""
    archive_lag: int
    """Ended and not archived."""
    open: int
    """Accepted and not archived."""
    dead_letters: int


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Per second, between two snapshots."""

    requests: float
    finished: float
    tokens: float


async def look(settings: Settings, broker: Broker) -> Snapshot:
    """Raises BrokerError, SettingsError."""
    client = broker.commands
    finished = FinishedStream(client)
    logs = ResponseLogs(client, bus_max_entries=settings.bus_max_entries, partitions=broker.partitions)
    workers = await WorkerRegistry(client, Leases(client, settings.lease_ms)).living()
    models = {entry.name for entry in load_models(settings).entries} | {worker.model for worker in workers}
    return Snapshot(
        at_ms=time.time_ns() // 1_000_000,
        workers=workers,
        queues={
            name: {lane: await RequestQueue(client, name).state(lane) for lane in LANES} for name in sorted(models)
        },
        finished=await finished.added(),
        archive_lag=await finished.lag(ARCHIVER_GROUP),
        open=await logs.count_open(),
        dead_letters=await DeadLetters(client).count(),
    )


def rates_between(before: Snapshot, now: Snapshot) -> Rates:
    """A counter that began anew in between counts as standing still."""
    elapsed_s = max((now.at_ms - before.at_ms) / 1000, 0.001)
    requests = _added(now) - _added(before)
    return Rates(
        requests=round(max(0, requests) / elapsed_s, 1),
        finished=round(max(0, now.finished - before.finished) / elapsed_s, 1),
        tokens=round(sum(worker.tokens_per_s for worker in now.workers), 1),
    )


def _added(snapshot: Snapshot) -> int:
    return sum(state.added for lanes in snapshot.queues.values() for state in lanes.values())


def render(now: Snapshot, rates: Rates) -> str:
    """Tables of workers and queues, and a line of sums."""
    workers = [_worker(info) for info in now.workers]
    queues = [
        [model, lane, str(state.waiting), str(state.held), _age(state.oldest_at_ms, now.at_ms)]
        for model, lanes in now.queues.items()
        for lane, state in lanes.items()
    ]
    return "\n".join(
        [
            *table(["worker", "model", "engine", "slots", "tokens/s"], workers or [["none is alive"]]),
            "",
            *table(["model", "lane", "waiting", "held", "oldest"], queues),
            "",
            f"{rates.requests:g} requests/s, {rates.finished:g} ended/s, {rates.tokens:g} tokens/s",
            f"{now.open} open, {now.archive_lag} to archive, {now.dead_letters} dead letters",
        ]
    )


def _worker(info: WorkerInfo) -> list[str]:
    if info.is_ready:
        return [info.consumer, info.model, info.engine, f"{info.running}/{info.slots}", f"{info.tokens_per_s:.0f}"]
    progress = "".join(char if char.isprintable() else " " for char in info.loading)[:_PROGRESS]
    return [info.consumer, info.model, info.engine, "loading", progress]


def _age(since_ms: int | None, now_ms: int) -> str:
    return "-" if since_ms is None else f"{max(0, now_ms - since_ms) / 1000:.1f} s"


async def watch(settings: Settings, *, interval_s: float, once: bool, as_json: bool) -> None:
    """Print until interrupted, or once after one interval, which the rates need.

    A broker that is away is said and waited for, except where `once`. Raises BrokerError, SettingsError.
    """
    async with connect_broker(settings) as broker:
        before = await look(settings, broker)
        while True:
            await asyncio.sleep(interval_s)
            try:
                now = await look(settings, broker)
            except OpenChatError as exc:
                if once:
                    raise
                print(f"openchat: {exc.message}", file=sys.stderr)
                continue
            _show(now, rates_between(before, now), as_json=as_json, clear=not once and sys.stdout.isatty())
            if once:
                return
            before = now


def _show(now: Snapshot, rates: Rates, *, as_json: bool, clear: bool) -> None:
    if as_json:
        found: dict[str, Any] = msgspec.to_builtins(now)
        print(msgspec.json.encode(found | {"rates": msgspec.to_builtins(rates)}).decode(), flush=True)
    else:
        print(f"{_CLEAR if clear else ''}{render(now, rates)}", flush=True)
