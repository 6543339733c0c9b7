"""Many clients, each asking one thing after another until told to stop."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

from benchmarks.chaos.asks import NextAsk
from benchmarks.chaos.client import Client, Refused, Unavailable
from benchmarks.chaos.record import Record


class Load:
    """The clients of one run and everything that they saw."""

    def __init__(self, ports: Sequence[int], next_ask: NextAsk, *, seed: str, streams: int, patience_s: float) -> None:
        self.records: list[Record] = []
        self.counts: Counter[str] = Counter()
        self.refusals: list[str] = []
        """Answers to a POST that no fault explains."""
        self._live: dict[Record, None] = {}
        self._ports = ports
        self._next_ask = next_ask
        self._patience_s = patience_s
        self._rngs = [random.Random(f"{seed} client {i}") for i in range(streams)]
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._ask_on(rng)) for rng in self._rngs]

    async def finish(self) -> None:
        """No more requests; returns when every response has ended or was given up."""
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def abort(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def running(self) -> int:
        """Responses that were accepted and have not ended, as the clients know."""
        return len(self._live)

    def open_at(self, gateway: int) -> int:
        """Streams that a gateway is sending now."""
        return sum(
            1
            for record in self._live
            if record.segments and record.segments[-1].gateway == gateway and not record.segments[-1].closed_at
        )

    def silent_since(self, accepted_before: float, moment: float) -> int:
        """Streams of responses accepted before something happened that have had no new token since a moment."""
        return sum(
            1
            for record in self._live
            if record.ask.kind.is_stream
            and not record.ended_at
            and record.accepted_at < accepted_before
            and record.frames.last_text_at < moment
        )

    async def _ask_on(self, rng: random.Random) -> None:
        client = Client(self._ports, rng, self.counts, self._accepted)
        await asyncio.sleep(rng.uniform(0, 2.0))  # streams in step would be an easier case
        while not self._stop.is_set():
            try:
                await client.fetch(self._next_ask(rng), self._patience_s)
            except Unavailable:
                await asyncio.sleep(rng.uniform(0.3, 1.0))
            except OSError:
                self.counts["requests cut before an answer"] += 1
                await asyncio.sleep(rng.uniform(0.05, 0.3))
            except Refused as exc:
                self.refusals.append(str(exc))
                await asyncio.sleep(rng.uniform(0.3, 1.0))
            for record in [record for record in self._live if record.ended_at]:
                del self._live[record]

    def _accepted(self, record: Record) -> None:
        self.records.append(record)
        self._live[record] = None
