"""The writers of one worker: one for each partition, so that a slow shard holds up no other."""

from __future__ import annotations

import asyncio

from schemas.ids import ResponseId
from streams.clients import Client
from streams.keys import partition_of
from streams.writer import LogAppender, Writer


class Writers:
    """All response logs that one worker writes, in every partition."""

    def __init__(
        self, client: Client, *, partitions: int, consumer: str, boot: str, flush_ms: int, bus_max_entries: int
    ) -> None:
        self._writers = [
            Writer(
                client,
                consumer=consumer,
                boot=boot,
                flush_ms=flush_ms,
                bus_max_entries=bus_max_entries,
                partition=partition,
                partitions=partitions,
            )
            for partition in range(partitions)
        ]

    def open(self, response_id: ResponseId, attempt: int) -> LogAppender:
        """Begin an attempt, as `Writer.open`."""
        return self._writers[partition_of(response_id, len(self._writers))].open(response_id, attempt)

    def stop(self) -> None:
        """As `Writer.stop`, for all."""
        for writer in self._writers:
            writer.stop()

    async def run_flushes(self) -> None:
        """Flush until `stop`."""
        async with asyncio.TaskGroup() as group:
            for writer in self._writers:
                group.create_task(writer.run_flushes())
