"""The bus: one entry for each flush, read once by each gateway. It only makes things fast."""

from __future__ import annotations

from schemas.ids import ResponseId
from streams.clients import Client
from streams.connect import Script, map_broker_errors
from streams.keys import bus_key

BusPosition = str
"""Id of a bus entry: where a reader stands."""

BusEntry = tuple[ResponseId, str, bytes]
"""Response, entry id in its log, event JSON."""


class Bus:
    """The bus of one partition."""

    def __init__(self, client: Client, partition: int = 0) -> None:
        self._client = client
        self._key = bus_key(partition)
        self._trim = Script("trim_by_age")

    async def end(self) -> BusPosition:
        """The present last id: a reader that starts here must read the open logs itself."""
        with map_broker_errors():
            last = await self._client.xrevrange(self._key, count=1)
        return last[0][0].decode() if last else "0-0"

    async def read(
        self, position: BusPosition, count: int, *, client: Client, block_ms: int
    ) -> tuple[BusPosition, list[BusEntry]]:
        """The entries of the next flushes and the new position; empty after `block_ms`."""
        with map_broker_errors():
            reply = await client.xread({self._key: position}, count=count, block=block_ms)
        if not reply:
            return position, []
        rows = reply[0][1]
        entries = [(*_split(field), raw) for _, fields in rows for field, raw in fields.items()]
        return rows[-1][0].decode(), entries

    async def trim(self, max_age_s: int) -> None:
        """Drop entries older than `max_age_s` by the broker's clock."""
        await self._trim.run(self._client, [self._key], [max_age_s])


def _split(field: bytes) -> tuple[ResponseId, str]:
    response_id, _, entry_id = field.decode("ascii", "replace").partition(" ")
    return ResponseId(response_id), entry_id
