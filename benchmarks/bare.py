"""The synthetic engine alone, in a process of its own: what everything else is added to."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys
import time
from typing import Any

import uvloop

from benchmarks.figures import Times
from benchmarks.process import cpu_s
from engine.base import Generation
from engine.synthetic.engine import SyntheticEngine
from schemas.ids import new_response_id
from schemas.requests import GenerationRequest, Message

_PROBE_TOKENS = 4


async def measure(streams: int, tokens_per_second: float, seconds: float, probes: int) -> dict[str, Any]:
    """CPU µs per token, and the times of tokens, with so many generations at once."""
    engine = SyntheticEngine(tokens_per_second=tokens_per_second, ttft_ms=0, capacity=streams + probes)
    times: list[list[float]] = [[] for _ in range(streams)]
    tasks = [asyncio.create_task(_generate(engine, 10**6, times[i])) for i in range(streams)]
    for task in tasks:
        await asyncio.sleep(random.random() * 2 / streams)
        assert not task.done()
    began, cpu = time.perf_counter(), cpu_s(os.getpid())
    await asyncio.sleep(seconds)
    ended, cpu = time.perf_counter(), cpu_s(os.getpid()) - cpu
    window = [[t for t in of_stream if began <= t <= ended] for of_stream in times]
    tokens = sum(map(len, window))
    first: list[float] = []
    for _ in range(probes):
        asked_at = time.perf_counter()
        probe: list[float] = []
        await _generate(engine, _PROBE_TOKENS, probe)
        first.append(probe[0] - asked_at)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    gaps = [b - a for of_stream in window for a, b in itertools.pairwise(of_stream)]
    return {"cpu_us": cpu / tokens * 1e6, "first": Times.of(first).as_dict(), "gap": Times.of(gaps).as_dict()}


async def _generate(engine: SyntheticEngine, tokens: int, times: list[float]) -> None:
    request = GenerationRequest(model="m", messages=[Message("user", "hi")], max_output_tokens=tokens)
    async for delta in engine.generate(Generation(id=new_response_id(), request=request)):
        if delta.text:
            times.append(time.perf_counter())


if __name__ == "__main__":
    streams, rate, seconds, probes = (float(word) for word in sys.argv[1:])
    print(json.dumps(uvloop.run(measure(int(streams), rate, seconds, int(probes)))))
