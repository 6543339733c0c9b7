"""One run: a stack, its load, its faults, and the judgement."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos.asks import NextAsk
from benchmarks.chaos.director import Director
from benchmarks.chaos.faults import Fault, Target
from benchmarks.chaos.load import Load
from benchmarks.chaos.lookout import looking
from benchmarks.chaos.recovery import Spread, measure
from benchmarks.chaos.schedule import Plan
from benchmarks.chaos.settle import Findings, settle
from benchmarks.chaos.stack import Layout, running
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


async def run(
    folder: Path, layout: Layout, plan: Plan, next_ask: NextAsk, options: Options, settings: Settings
) -> Result:
    """Against a broker of the stack's own."""
    began = time.monotonic()
    rng = random.Random(f"{options.seed} faults")
    async with running(folder, layout) as stack:
        load = Load(
            stack.ports, next_ask, seed=str(options.seed), streams=options.streams, patience_s=options.patience_s
        )
        model = next_ask(random.Random(0)).model
        async with looking(broker_url(stack.data_dir), model, settings) as lookout:
            director = Director(stack, load, lookout, plan, rng, lease_s=settings.lease_ms / 1000)
            load.start()
            try:
                await director.run(options.minutes * 60 * 1.5)
                await load.finish()
            finally:
                await load.abort()
            findings = await settle(stack.data_dir, lookout, load.records, options.patience_s)
    return Result(
        findings=findings,
        faults=director.faults,
        counts=load.counts,
        refusals=load.refusals,
        by_kind=Counter(str(record.ask.kind) for record in load.records),
        recovery=measure(load.records, findings.logs, director.faults),
        took_s=time.monotonic() - began,
        reached=director.is_complete,
    )
