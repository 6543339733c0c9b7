"""`oc:finished`: what has ended, for the archiver and later readers. At least once."""

from __future__ import annotations

import msgspec
import redis.exceptions

from schemas.decoding import UNDECODABLE
from schemas.requests import FinishedEntry
from streams.clients import Client
from streams.connect import Script, map_broker_errors
from streams.keys import FINISHED
from streams.replication import Replication

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(FinishedEntry).decode


class FinishedStream:
    """Sender's and reader's side; a reader names its group."""

    def __init__(self, client: Client, replication: Replication | None = None) -> None:
        self._client = client
        self._replication = replication or Replication()
        self._trim = Script("trim")

    async def send(self, entry: FinishedEntry) -> None:
        """May be repeated: every reader takes a second entry for the same id as done. Raises BrokerError."""
        await self._replication.xadd(self._client, FINISHED, {"finished": _encode(entry)})

    async def ensure_group(self, group: str) -> None:
        with map_broker_errors():
            try:
                await self._client.xgroup_create(FINISHED, group, id="0", mkstream=True)
            except redis.exceptions.ResponseError as exc:
                if not str(exc).startswith("BUSYGROUP"):
                    raise

    async def read(
        self, group: str, consumer: str, count: int, *, client: Client, block_ms: int
    ) -> list[tuple[str, FinishedEntry | None]]:
        """New entries with their ids; None stands for one that does not parse."""
        with map_broker_errors():
            reply = await client.xreadgroup(group, consumer, {FINISHED: ">"}, count=count, block=block_ms)
        return [(i.decode(), _parse(fields)) for i, fields in reply[0][1]] if reply else []

    async def read_pending(
        self, group: str, consumer: str, count: int, after: str
    ) -> list[tuple[str, FinishedEntry | None]]:
        """Entries that this reader was given before and has not acknowledged, behind `after` ("0": from the first)."""
        with map_broker_errors():
            reply = await self._client.xreadgroup(group, consumer, {FINISHED: after}, count=count)
        return [(i.decode(), _parse(fields)) for i, fields in reply[0][1] if fields] if reply else []

    async def claim_idle(
        self, group: str, consumer: str, count: int, idle_ms: int
    ) -> list[tuple[str, FinishedEntry | None]]:
        """Entries that a reader has held for longer than `idle_ms`: the work is short, so that one is dead."""
        with map_broker_errors():
            reply = await self._client.xautoclaim(FINISHED, group, consumer, idle_ms, count=count)
        return [(i.decode(), _parse(fields)) for i, fields in reply[1] if fields]

    async def acknowledge(self, group: str, entry_ids: list[str]) -> None:
        """Acknowledge, and trim what every group has acknowledged."""
        with map_broker_errors():
            await self._client.xack(FINISHED, group, *entry_ids)
        await self._trim.run(self._client, [FINISHED], [])

    async def added(self) -> int:
        """Entries ever since the stream began."""
        with map_broker_errors():
            if not await self._client.exists(FINISHED):
                return 0
            return int((await self._client.xinfo_stream(FINISHED))["entries-added"])

    async def lag(self, group: str) -> int:
        """Entries not acknowledged by the group."""
        with map_broker_errors():
            length = await self._client.xlen(FINISHED)
            groups = await self._client.xinfo_groups(FINISHED) if length else []
        for row in groups:
            if row["name"].decode() == group:
                # lag is null after deletions ahead of the group
                undelivered = row["lag"] if row["lag"] is not None else length - row["pending"]
                return int(undelivered) + int(row["pending"])
        return int(length)


def _parse(fields: dict[bytes, bytes]) -> FinishedEntry | None:
    try:
        return _decode(fields[b"finished"])
    except (KeyError, *UNDECODABLE):
        return None
