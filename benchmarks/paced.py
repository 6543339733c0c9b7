"""Streams at the pace of a model: what a token costs, what it waits for, and what an open stream takes."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.client import Stream, check, open_stream
from benchmarks.figures import Times
from benchmarks.stack import BenchStack, running

TOKENS_PER_SECOND = 50
_ENDLESS = 1_000_000
_RAMP_S = 2.0
_SETTLE_S = 1.0
_PROBE_TOKENS = 4
_PROBES_PER_S = 20
_CLOSE_LIMIT_S = 30.0


@dataclass(frozen=True)
class Paced:
    """One run with a number of streams."""

    streams: int
    tokens_per_s: float
    cpu_us: dict[str, float]
    """CPU µs per token, by part."""
    first: Times
    gap: Times
    bare_first: Times
    bare_gap: Times
    bare_cpu_us: float
    memory: dict[str, float]
    """Bytes for each open stream, by part, at the end of the run."""
    tokens_each: float
    """Tokens that each stream had then."""


async def run(streams: int, seconds: float) -> Paced:
    """A stack, `streams` endless streams that are not in step, then short requests beside them."""
    probes = int(seconds * _PROBES_PER_S)
    bare = await _bare(streams, seconds, probes)
    settings = {"synthetic_tokens_per_second": str(TOKENS_PER_SECOND), "slots": str(streams + 64)}
    async with running(**settings) as stack:
        await _warm_up(stack)
        empty = stack.memory()
        opened = await _ramp(stack, streams)
        await asyncio.sleep(_SETTLE_S)
        tokens_per_s, cpu_us, gap = await _window(stack, opened, seconds)
        full, tokens_each = stack.memory(), sum(stream.count for stream in opened) / streams
        first = await _probe(stack, probes)
        check(opened)
        for stream in opened:
            stream.close()
    return Paced(
        streams=streams,
        tokens_per_s=tokens_per_s,
        cpu_us=cpu_us,
        first=first,
        gap=gap,
        bare_first=Times(**bare["first"]),
        bare_gap=Times(**bare["gap"]),
        bare_cpu_us=bare["cpu_us"],
        memory={part: (full[part] - empty[part]) / streams for part in full},
        tokens_each=tokens_each,
    )


async def _bare(streams: int, seconds: float, probes: int) -> dict[str, Any]:
    arguments = (str(streams), str(TOKENS_PER_SECOND), str(seconds), str(probes))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.bare", *arguments),
        cwd=Path(__file__).parents[1],
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    found: dict[str, Any] = json.loads(out)
    return found


async def _warm_up(stack: BenchStack) -> None:
    for _ in range(20):
        stream = await open_stream(stack.port, _PROBE_TOKENS)
        await stream.done.wait()


async def _ramp(stack: BenchStack, streams: int) -> list[Stream]:
    """Spread over two seconds, so that the streams are not in step."""
    opened = []
    began = time.perf_counter()
    for i in range(streams):
        await asyncio.sleep(began + _RAMP_S * i / streams - time.perf_counter())
        opened.append(await open_stream(stack.port, _ENDLESS))
    async with asyncio.timeout(_CLOSE_LIMIT_S):
        await asyncio.gather(*(stream.first.wait() for stream in opened))
    return opened


async def _window(stack: BenchStack, opened: list[Stream], seconds: float) -> tuple[float, dict[str, float], Times]:
    marks = [len(stream.times) for stream in opened]
    before, began = stack.cpu_s(), time.perf_counter()
    await asyncio.sleep(seconds)
    after, elapsed = stack.cpu_s(), time.perf_counter() - began
    ends = [len(stream.times) for stream in opened]
    tokens = sum(ends) - sum(marks)
    gaps: list[float] = []
    for stream, mark, end in zip(opened, marks, ends, strict=True):
        times = stream.times[mark:end]
        gaps.extend(b - a for a, b in itertools.pairwise(times))
    cpu_us = {part: (after[part] - before[part]) / tokens * 1e6 for part in after}
    return tokens / elapsed, cpu_us, Times.of(gaps)


async def _probe(stack: BenchStack, probes: int) -> Times:
    """Short requests at a steady rate, each on a new connection: the times to their first token."""
    asked = []
    began = time.perf_counter()
    for i in range(probes):
        await asyncio.sleep(began + i / _PROBES_PER_S - time.perf_counter())
        asked.append(await open_stream(stack.port, _PROBE_TOKENS))
    async with asyncio.timeout(_CLOSE_LIMIT_S):
        await asyncio.gather(*(stream.done.wait() for stream in asked))
    check(asked, _PROBE_TOKENS)
    return Times.of([stream.ttft_s for stream in asked])
