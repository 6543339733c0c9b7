"""The request queue: one stream per model and lane, consumer group `inference`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import redis.exceptions

from schemas.decoding import UNDECODABLE
from schemas.errors import BadEntry
from schemas.ids import ResponseId
from schemas.requests import LANES, DeadLetter, Lane, RequestEntry
from streams.clients import Client
from streams.connect import Script, map_broker_errors
from streams.dead import DeadLetters, bare_body, is_unstored, own_body, salvage
from streams.keys import INFERENCE_GROUP, RELEASED_CONSUMER, requests_key
from streams.replication import Replication

_PAGE = 500
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(RequestEntry).decode


class Delivery(msgspec.Struct, frozen=True):
    """An entry that this consumer holds until it acknowledges."""

    lane: Lane
    entry_id: str
    fields: dict[bytes, bytes]

    def request(self) -> RequestEntry:
        """Raises BadEntry where the entry does not parse."""
        try:
            return _decode(self.fields[b"request"])
        except KeyError as exc:
            raise BadEntry("the entry has no field 'request'") from exc
        except UNDECODABLE as exc:
            raise BadEntry(f"request does not parse: {exc}") from exc

    def salvaged_id(self) -> ResponseId | None:
        """Of which response this is, where that much can be read although it does not parse."""
        return salvage(self.fields.get(b"request", b"")).response_id


class QueueState(msgspec.Struct, frozen=True, kw_only=True):
    """One lane of one model, as it stands."""

    waiting: int
    """Not delivered to a worker."""
    held: int
    """Delivered and not finished."""
    added: int
    """Ever since the stream began."""
    oldest_at_ms: int | None
    """When the oldest entry that is not finished was queued, unix ms by the broker's clock."""


def _deliveries(lane: Lane, entries: list[Any]) -> list[Delivery]:
    # an entry deleted while pending comes back without fields
    return [Delivery(lane, entry_id.decode(), fields) for entry_id, fields in entries if fields]


class RequestQueue:
    """The queue of one model."""

    def __init__(self, client: Client, model: str, replication: Replication | None = None) -> None:
        self._client = client
        self._replication = replication or Replication()
        self._keys = {lane: requests_key(model, lane) for lane in LANES}
        self._claim = Script("claim")
        self._drop = Script("drop_consumer")
        self._finish = Script("finish")
        self._letters = DeadLetters(client)

    async def send(self, lane: Lane, entry: RequestEntry) -> None:
        """Queue a request; sent twice, it is still generated once. Raises BrokerError."""
        await self._replication.xadd(self._client, self._keys[lane], {"request": _encode(entry)})

    async def depth(self, lane: Lane) -> int:
        """Entries that are not finished: waiting or being generated."""
        with map_broker_errors():
            return int(await self._client.xlen(self._keys[lane]))

    async def state(self, lane: Lane) -> QueueState:
        """Zeros where nothing was ever queued. Raises BrokerError."""
        key = self._keys[lane]
        with map_broker_errors():
            if not await self._client.exists(key):
                return QueueState(waiting=0, held=0, added=0, oldest_at_ms=None)
            info = await self._client.xinfo_stream(key)
            groups = await self._client.xinfo_groups(key)
        held = sum(row["pending"] for row in groups if row["name"].decode() == INFERENCE_GROUP)
        first = info["first-entry"]
        return QueueState(
            waiting=max(0, info["length"] - held),  # finished entries are deleted
            held=held,
            added=info["entries-added"],
            oldest_at_ms=int(first[0].partition(b"-")[0]) if first else None,
        )

    async def ensure_groups(self) -> None:
        """Create the groups from the start of the streams: from `$` would skip what waits."""
        for key in self._keys.values():
            with map_broker_errors():
                try:
                    await self._client.xgroup_create(key, INFERENCE_GROUP, id="0", mkstream=True)
                except redis.exceptions.ResponseError as exc:
                    if not str(exc).startswith("BUSYGROUP"):
                        raise

    async def read(
        self, consumer: str, lane: Lane, count: int, *, client: Client | None = None, block_ms: int | None = None
    ) -> list[Delivery]:
        """New entries of one lane; pass a blocking client with `block_ms`. Raises GroupMissing, BrokerError."""
        with map_broker_errors():
            reply = await (client or self._client).xreadgroup(
                INFERENCE_GROUP, consumer, {self._keys[lane]: ">"}, count=count, block=block_ms
            )
        return _deliveries(lane, reply[0][1]) if reply else []

    async def pending_ids(self, consumer: str, lane: Lane, count: int = 1000) -> list[str]:
        """Ids of the entries that a consumer holds."""
        with map_broker_errors():
            rows = await self._client.xpending_range(
                self._keys[lane], INFERENCE_GROUP, "-", "+", count, consumername=consumer
            )
        return [row["message_id"].decode() for row in rows]

    async def fetch(self, lane: Lane, entry_ids: list[str]) -> list[Delivery]:
        """Entries by id, without touching who holds them."""
        pipe = self._client.pipeline(transaction=False)
        for entry_id in entry_ids:
            pipe.xrange(self._keys[lane], entry_id, entry_id)
        with map_broker_errors():
            replies = await pipe.execute()
        return [delivery for reply in replies for delivery in _deliveries(lane, reply)]

    async def holders(self, lane: Lane) -> dict[str, int]:
        """Consumer → number of entries that it holds."""
        with map_broker_errors():
            rows = await self._client.xinfo_consumers(self._keys[lane], INFERENCE_GROUP)
        return {row["name"].decode(): row["pending"] for row in rows}

    async def claim(self, dead: str, consumer: str, lane: Lane, count: int) -> list[Delivery]:
        """Take over up to `count` entries of a consumer that has no lease."""
        reply = await self._claim.run(self._client, [self._keys[lane]], [INFERENCE_GROUP, dead, consumer, count])
        return _deliveries(lane, [(row[0], _pairs(row[1])) for row in reply if row])

    async def transfer(self, delivery: Delivery, owner: str) -> None:
        """Give an entry to the worker that is generating it; the delivery count stays."""
        await self._xclaim_just_id(delivery, owner)

    async def release(self, delivery: Delivery) -> None:
        """Hand an entry back: any worker may claim it at once; the delivery count stays."""
        await self._xclaim_just_id(delivery, RELEASED_CONSUMER)

    async def _xclaim_just_id(self, delivery: Delivery, owner: str) -> None:
        with map_broker_errors():
            await self._client.xclaim(
                self._keys[delivery.lane], INFERENCE_GROUP, owner, 0, [delivery.entry_id], justid=True
            )

    async def finish(self, delivery: Delivery) -> None:
        """Acknowledge and delete; may be repeated."""
        await self._finish.run(self._client, [self._keys[delivery.lane]], [INFERENCE_GROUP, delivery.entry_id])

    async def remove(self, *response_ids: ResponseId, since_ms: int = 0) -> None:
        """Delete every entry of responses that have ended, queued at `since_ms` (by the broker's clock) or later.

        Reads the whole queue from there on, which is bounded.
        """
        for lane in self._keys:
            async for delivery in self._all(lane, since_ms):
                if delivery.salvaged_id() in response_ids:
                    await self.finish(delivery)

    async def holds(self, lane: Lane, response_id: ResponseId) -> bool:
        """Is there an entry for it? Reads the whole queue, which is bounded."""
        async for delivery in self._all(lane):
            if delivery.salvaged_id() == response_id:
                return True
        return False

    async def _all(self, lane: Lane, since_ms: int = 0) -> AsyncIterator[Delivery]:
        low = f"{max(0, since_ms)}-0"
        while True:
            with map_broker_errors():
                page = await self._client.xrange(self._keys[lane], low, "+", count=_PAGE)
            for delivery in _deliveries(lane, page):
                yield delivery
            if len(page) < _PAGE:
                return
            low = f"({page[-1][0].decode()}"

    async def bury(self, delivery: Delivery, reason: str, attempts: int = 0, *, error: str = "") -> None:
        """Copy an entry to `oc:dead`, then finish it. A crash between leaves two letters, never none.

        Of an entry that is gone from the queue no letter is kept: it was finished, or its response was deleted.
        """
        unstored = is_unstored(delivery.fields)
        letter = DeadLetter(
            stream=self._keys[delivery.lane],
            entry_id=delivery.entry_id,
            reason=reason,
            error="" if unstored else error,
            attempts=attempts,
            body=bare_body(delivery.fields) if unstored else own_body(delivery.fields),
        )
        letter_id = await self._letters.put(letter)
        # looked up after the letter was written: who deletes takes the entry first, and then the letters
        if not await self.fetch(delivery.lane, [delivery.entry_id]):
            await self._letters.remove(letter_id)
        await self.finish(delivery)

    async def drop_consumer(self, consumer: str) -> None:
        """Forget a consumer that holds nothing; one that does is left alone."""
        for key in self._keys.values():
            await self._drop.run(self._client, [key], [INFERENCE_GROUP, consumer])


def _pairs(flat: list[bytes] | None) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True)) if flat else {}
