"""What the broker says: who works on what, and what is left in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from schemas.errors import BrokerError
from schemas.ids import ResponseId
from schemas.requests import LANES
from schemas.settings import Settings
from schemas.workers import WorkerInfo
from streams.connect import Broker, connect_broker, map_broker_errors
from streams.dead import DeadLetters
from streams.finished import FinishedStream
from streams.keys import ARCHIVER_GROUP, open_key
from streams.leases import Leases, WorkerRegistry
from streams.logs import RawEntry, ResponseLogs
from streams.queue import RequestQueue


@dataclass(frozen=True)
class Left:
    """What stands in the broker although everything should be over."""

    held: int
    """Requests that a worker was given and nobody has finished."""
    waiting: int
    to_archive: int
    dead_letters: int
    open: list[str]
    """Ids in the open index."""

    @property
    def is_clean(self) -> bool:
        return not (self.held or self.waiting or self.to_archive)


class Lookout:
    """Reads only. Where the broker is away it sees nothing."""

    def __init__(self, broker: Broker, model: str, settings: Settings) -> None:
        client = broker.commands
        self._client = client
        self._queue = RequestQueue(client, model)
        self._registry = WorkerRegistry(client, Leases(client, settings.lease_ms))
        self._finished = FinishedStream(client)
        self._logs = ResponseLogs(client, bus_max_entries=settings.bus_max_entries, partitions=broker.partitions)

    async def workers(self) -> list[WorkerInfo]:
        """Those with a lease."""
        try:
            return await self._registry.living()
        except BrokerError:
            return []

    async def held(self) -> Counter[str]:
        """Consumer → responses that it is generating."""
        found: Counter[str] = Counter()
        try:
            for lane in LANES:
                found.update(await self._queue.holders(lane))
        except BrokerError:
            return Counter()
        return found

    async def left(self) -> Left:
        """Raises BrokerError."""
        states = [await self._queue.state(lane) for lane in LANES]
        with map_broker_errors():
            members = await self._client.zrange(open_key(), 0, -1)
        return Left(
            held=sum(state.held for state in states),
            waiting=sum(state.waiting for state in states),
            to_archive=await self._finished.lag(ARCHIVER_GROUP),
            dead_letters=await DeadLetters(self._client).count(),
            open=[member.decode() for member in members],
        )

    async def log_of(self, response_id: ResponseId) -> list[RawEntry]:
        """Raises BrokerError."""
        return await self._logs.read_raw(response_id)


@asynccontextmanager
async def looking(url: str, model: str, settings: Settings) -> AsyncIterator[Lookout]:
    """A lookout at the broker of a URL."""
    async with connect_broker(msgspec.structs.replace(settings, redis_url=url)) as broker:
        yield Lookout(broker, model, settings)
