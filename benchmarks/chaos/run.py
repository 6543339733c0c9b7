"""One run: a stack, its load, its faults, and the judgement."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.chaos.asks import SYNTHETIC, NextAsk, synthetic_ask
from benchmarks.chaos.director import Director
from benchmarks.chaos.faults import Fault, Target
from benchmarks.chaos.load import Load
from benchmarks.chaos.local import ask_uninterrupted
from benchmarks.chaos.lookout import looking
from benchmarks.chaos.recovery import Spread, measure
from benchmarks.chaos.schedule import Plan
from benchmarks.chaos.sentinel import FailoverDirector, Trio
from benchmarks.chaos.settle import Findings, settle
from benchmarks.chaos.stack import ChaosStack, Layout, running
from schemas.settings import Settings
from streams.embedded import broker_url


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    minutes: float
    streams: int
    seed: int
    patience_s: float
    """How long a client waits for a response before it counts as lost."""


@dataclass
class Result:
    """Everything that the report shows of one run."""

    findings: Findings
    faults: list[Fault]
    counts: Counter[str]
    refusals: list[str]
    by_kind: Counter[str] = field(default_factory=Counter)
    recovery: dict[Target, Spread] = field(default_factory=dict)
    took_s: float = 0.0
    reached: bool = True
    """As many counted faults as were planned."""


async def run(folder: Path, layout: Layout, plan: Plan, model: str, options: Options, settings: Settings) -> Result:
    """Against a broker of the stack's own."""
    began = time.monotonic()
    rng = random.Random(f"{options.seed} faults")
    async with running(folder, layout) as stack:
        next_ask = synthetic_ask if model == SYNTHETIC else await ask_uninterrupted(stack.ports, model)
        load = _load(stack, next_ask, options)
        async with looking(broker_url(stack.data_dir), model, settings) as lookout:
            director = Director(stack, load, lookout, plan, rng, lease_s=settings.lease_ms / 1000)
            await _under_load(load, director.run(options.minutes * 60 * 1.5))
            findings = await settle(stack.data_dir, lookout, load.records, options.patience_s)
    return _result(findings, load, director.faults, began, reached=director.is_complete)


async def run_failovers(folder: Path, layout: Layout, failovers: int, options: Options, settings: Settings) -> Result:
    """Against a Sentinel trio whose primary dies again and again."""
    began = time.monotonic()
    rng = random.Random(f"{options.seed} failovers")
    trio = await asyncio.to_thread(Trio, folder / "trio")
    try:
        await asyncio.to_thread(trio.start)
        async with running(folder, layout, redis_url=trio.url) as stack:
            load = _load(stack, synthetic_ask, options)
            async with looking(trio.url, SYNTHETIC, settings) as lookout:
                director = FailoverDirector(trio, load, rng, failovers=failovers)
                await _under_load(load, director.run(options.minutes * 60 * 1.5))
                findings = await settle(stack.data_dir, lookout, load.records, options.patience_s, is_failover=True)
    finally:
        await asyncio.to_thread(trio.stop)
    return _result(findings, load, director.faults, began, reached=director.is_complete)


def _load(stack: ChaosStack, next_ask: NextAsk, options: Options) -> Load:
    return Load(stack.ports, next_ask, seed=str(options.seed), streams=options.streams, patience_s=options.patience_s)


async def _under_load(load: Load, faults: Coroutine[Any, Any, None]) -> None:
    """Faults while clients ask; returns when the last response has ended."""
    load.start()
    try:
        await faults
        await load.finish()
    finally:
        await load.abort()


def _result(findings: Findings, load: Load, faults: list[Fault], began: float, *, reached: bool) -> Result:
    return Result(
        findings=findings,
        faults=faults,
        counts=load.counts,
        refusals=load.refusals,
        by_kind=Counter(str(record.ask.kind) for record in load.records),
        recovery=measure(load.records, findings.logs, faults),
        took_s=time.monotonic() - began,
        reached=reached,
    )
