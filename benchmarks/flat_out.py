"""An engine that is never the limit: tokens, requests and archived rows per second."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass

from benchmarks.client import Stream, check, open_stream
from benchmarks.stack import BenchStack, running
from streams.connect import Broker
from streams.embedded import broker_url
from streams.finished import FinishedStream
from streams.keys import ARCHIVER_GROUP

_SHORT = 8
"""Tokens of a short request."""
_LONG = 500
_DRAIN_LIMIT_S = 300.0
_POLL_S = 0.01


@dataclass(frozen=True)
class FlatOut:
    """One run with a number of clients that ask again and again."""

    streams: int
    tokens_per_s: float
    token_cpu_us: float
    """All parts together, without the client."""
    requests_per_s: float
    request_cpu_ms: float
    """Of a request with eight tokens, all parts together, without the client."""


@dataclass(frozen=True)
class Archived:
    """How fast the archiver caught up."""

    rows: int
    rows_per_s: float
    cpu_us: float
    """Of the archiver, per row."""


def _settings(streams: int) -> dict[str, str]:
    return {"synthetic_tokens_per_second": "100000", "slots": str(streams), "max_queued": "10000"}


async def run(streams: int, seconds: float) -> FlatOut:
    """Long responses for `seconds`, then short ones for as long."""
    async with running(**_settings(streams)) as stack:
        await _ask(stack, streams, _SHORT, 1.0)
        tokens_per_s, token_cpu_s, _ = await _ask(stack, streams, _LONG, seconds)
        _, cpu_per_token, requests_per_s = await _ask(stack, streams, _SHORT, seconds)
    return FlatOut(
        streams=streams,
        tokens_per_s=tokens_per_s,
        token_cpu_us=token_cpu_s * 1e6,
        requests_per_s=requests_per_s,
        request_cpu_ms=cpu_per_token * _SHORT * 1e3,
    )


async def run_archive(rows: int, database_url: str) -> Archived:
    """Stop the archiver, let `rows` responses end, and let it go on. Without a URL: SQLite."""
    async with running(**_settings(64), database_url=database_url) as stack:
        broker = Broker(broker_url(stack.data_dir), timeout_s=5.0, connections=1)
        finished = FinishedStream(broker.commands)
        stack.send("archiver", signal.SIGSTOP)
        left = iter(range(rows))
        await asyncio.gather(*(_ask_each(stack, left) for _ in range(64)))
        async with asyncio.timeout(_DRAIN_LIMIT_S):
            while await finished.added() < rows:
                await asyncio.sleep(_POLL_S)
        before, began = stack.cpu_s()["archiver"], time.perf_counter()
        stack.send("archiver", signal.SIGCONT)
        async with asyncio.timeout(_DRAIN_LIMIT_S):
            while await finished.lag(ARCHIVER_GROUP):
                await asyncio.sleep(_POLL_S)
        elapsed, cpu = time.perf_counter() - began, stack.cpu_s()["archiver"] - before
        await broker.close()
    return Archived(rows=rows, rows_per_s=rows / elapsed, cpu_us=cpu / rows * 1e6)


async def _ask_each(stack: BenchStack, left: object) -> None:
    for _ in left:  # type: ignore[attr-defined]
        stream = await open_stream(stack.port, _SHORT, keep_times=False)
        await stream.done.wait()
        check([stream], _SHORT)


async def _ask(stack: BenchStack, clients: int, tokens: int, seconds: float) -> tuple[float, float, float]:
    """Tokens per second, CPU seconds per token, and requests per second, all in the time window."""
    counted = [0, 0]
    open_now: dict[Stream, int] = {}
    stop = asyncio.Event()

    async def client() -> None:
        while not stop.is_set():
            stream = await open_stream(stack.port, tokens, keep_times=False)
            open_now[stream] = 0
            await stream.done.wait()
            del open_now[stream]
            check([stream], tokens)
            counted[0] += tokens
            counted[1] += 1

    def total() -> int:
        return counted[0] + sum(stream.count for stream in open_now)

    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    await asyncio.sleep(min(1.0, seconds / 4))
    cpu, tokens_before, requests_before, began = stack.cpu_s(), total(), counted[1], time.perf_counter()
    await asyncio.sleep(seconds)
    elapsed = time.perf_counter() - began
    used = sum(now - cpu[part] for part, now in stack.cpu_s().items() if part != "client")
    found, requests = total() - tokens_before, counted[1] - requests_before
    stop.set()
    await asyncio.gather(*tasks)
    return found / elapsed, used / max(found, 1), requests / elapsed
