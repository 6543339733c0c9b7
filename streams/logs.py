"""Response logs: accept, read and end. Workers write through `streams.writer`.

Entry ids are explicit, `<attempt>-<sequence+1>`; Redis refuses an id at or below the
last one, and that refusal is the fence. docs/protocol.md has the whole protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from schemas.decoding import looks_unstored
from schemas.errors import BadEntry, LogGone
from schemas.events import Accepted, Entry, EntryId, Fence, LogEvent, decode_event, encode_event, parse_entry_id
from schemas.ids import ResponseId
from streams.clients import Client
from streams.connect import Script, map_broker_errors
from streams.keys import bus_key, log_key, open_key, partition_of, unqueued_key

_PAGE = 1000
"""Entries per XRANGE: bounds the reply, not the log."""

RawEntry = tuple[str, bytes]
"""Entry id and event JSON as they stand in the log."""

EndResult = Literal["ok", "changed", "sealed", "gone"]


def decode_entry(entry_id: bytes | str, raw: bytes) -> Entry:
    """Raises BadEntry."""
    text = entry_id if isinstance(entry_id, str) else entry_id.decode("ascii", "replace")
    parsed = parse_entry_id(text)
    if parsed is None:
        raise BadEntry(f"log entry id {text!r} is malformed")
    return Entry(parsed, decode_event(raw))


def is_unstored(raw: list[RawEntry]) -> bool:
    """The log of a response that was asked for with `store: false`; one that does not parse if it looks like it."""
    first = raw[0][1] if raw else b""
    try:
        event = decode_event(first)
    except BadEntry:
        return looks_unstored(first)
    return isinstance(event, Accepted) and not event.request.store


def _event_of(fields: list[bytes]) -> bytes:
    """Of the names and values of an entry; empty where there is none."""
    return dict(zip(fields[::2], fields[1::2], strict=False)).get(b"event", b"")


def _only_entry(reply: list[Any]) -> Entry | None:
    try:
        return decode_entry(reply[0][0], reply[0][1][b"event"]) if reply else None
    except (BadEntry, KeyError):
        return None


class ResponseLogs:
    """The logs of all responses of one broker."""

    def __init__(self, client: Client, *, bus_max_entries: int, partitions: int = 1) -> None:
        self._client = client
        self._bus_max = bus_max_entries
        self._partitions = partitions
        self._accept = Script("accept")
        self._end = Script("end")
        self._put_back = Script("put_back")

    def _partition_of(self, response_id: ResponseId) -> int:
        return partition_of(response_id, self._partitions)

    async def accept(self, response_id: ResponseId, accepted_at_ms: int, events: Sequence[LogEvent]) -> None:
        """Write `0-1`, `0-2` and what else it begins with; may be repeated.

        Raises BrokerError; BadEntry where the id is taken.
        """
        partition = self._partition_of(response_id)
        keys = [log_key(response_id, self._partitions), open_key(partition), unqueued_key(partition)]
        args: list[Any] = [response_id, accepted_at_ms, *map(encode_event, events)]
        if not await self._accept.run(self._client, keys, args):
            raise BadEntry(f"a log for {response_id} exists already")

    async def read_raw(
        self, response_id: ResponseId, after: EntryId | None = None, *, from_: EntryId | None = None
    ) -> list[RawEntry]:
        """All entries behind `after`, or from `from_` on, fences included; empty where there are none or no log."""
        key = log_key(response_id, self._partitions)
        low = f"({after}" if after else str(from_ or "-")
        found: list[RawEntry] = []
        while True:
            with map_broker_errors():
                page = await self._client.execute_command("XRANGE", key, low, "+", "COUNT", _PAGE, as_it_came=True)
            found.extend(
                [
                    # the usual entry without a call: this is done for every token
                    (entry_id.decode(), fields[1] if fields[0] == b"event" else _event_of(fields))
                    for entry_id, fields in page
                ]
            )
            if len(page) < _PAGE:
                return found
            low = f"({found[-1][0]}"

    async def read(
        self, response_id: ResponseId, after: EntryId | None = None, *, from_: EntryId | None = None
    ) -> list[Entry]:
        """As `read_raw`, decoded. Raises LogGone where there is no log, BadEntry."""
        raw = await self.read_raw(response_id, after, from_=from_)
        if not raw and not await self.exists(response_id):
            raise LogGone(f"no log for {response_id}")
        return [decode_entry(*entry) for entry in raw]

    async def exists(self, response_id: ResponseId) -> bool:
        with map_broker_errors():
            return bool(await self._client.exists(log_key(response_id, self._partitions)))

    async def put_back(
        self, response_id: ResponseId, after: Entry | None, entries: list[Entry], *, accepted_at_ms: int, seal: bool
    ) -> bool:
        """Write again what a failover took, behind `after` (None: all of it), fences too; False where the log went on.

        May be repeated. Raises BrokerError.
        """
        args: list[Any] = [response_id, accepted_at_ms, "1" if seal else "0"]
        args += [str(after.id), encode_event(after.event)] if after else ["", ""]
        for entry in entries:
            args += [str(entry.id), encode_event(entry.event)]
        keys = [log_key(response_id, self._partitions), open_key(self._partition_of(response_id))]
        return bool(await self._put_back.run(self._client, keys, args))

    async def last_entries(self, response_ids: list[ResponseId]) -> list[Entry | None]:
        """The last entry of each log, in one round trip; None where there is no log, or one that does not parse."""
        pipe = self._client.pipeline(transaction=False)
        for response_id in response_ids:
            pipe.xrevrange(log_key(response_id, self._partitions), count=1)
        with map_broker_errors():
            replies = await pipe.execute() if response_ids else []
        return [_only_entry(reply) for reply in replies]

    async def first_entry(self, response_id: ResponseId) -> Entry | None:
        """`0-1`; None where there is no log, or one that does not parse."""
        with map_broker_errors():
            return _only_entry(await self._client.xrange(log_key(response_id, self._partitions), count=1))

    async def open_before(self, at_ms: int, count: int) -> list[ResponseId]:
        """Responses accepted before `at_ms` and not archived, the oldest of each partition."""
        return await self._indexed_before(open_key, at_ms, count)

    async def unqueued_before(self, at_ms: int, count: int) -> list[ResponseId]:
        """Responses accepted before `at_ms` of which it is not known that they were queued."""
        return await self._indexed_before(unqueued_key, at_ms, count)

    async def _indexed_before(self, key: Callable[[int], str], at_ms: int, count: int) -> list[ResponseId]:
        found: list[ResponseId] = []
        for partition in range(self._partitions):
            with map_broker_errors():
                ids = await self._client.zrangebyscore(key(partition), "-inf", f"({at_ms}", start=0, num=count)
            found.extend(ResponseId(raw.decode()) for raw in ids)
        return found

    async def queued(self, response_ids: list[ResponseId]) -> None:
        """Their request entries are written, or they need none any more; may be repeated."""
        pipe = self._client.pipeline(transaction=False)
        for response_id in response_ids:
            pipe.zrem(unqueued_key(self._partition_of(response_id)), response_id)
        with map_broker_errors():
            await pipe.execute()

    async def count_open(self) -> int:
        """Responses that were accepted and are not archived."""
        with map_broker_errors():
            return sum([int(await self._client.zcard(open_key(p))) for p in range(self._partitions)])

    async def last_ids(self, response_ids: list[ResponseId]) -> list[EntryId | None]:
        """The id of the last entry of each log, in one round trip; None where there is no log."""
        pipe = self._client.pipeline(transaction=False)
        for response_id in response_ids:
            pipe.xrevrange(log_key(response_id, self._partitions), count=1)
        with map_broker_errors():
            replies = await pipe.execute()
        return [parse_entry_id(reply[0][0].decode()) if reply else None for reply in replies]

    async def end(
        self, response_id: ResponseId, after: EntryId, fence: tuple[EntryId, Fence], events: list[Entry]
    ) -> EndResult:
        """Write fence, closing events and terminal event behind `after`, and seal; may be repeated."""
        args: list[Any] = [str(after), response_id, self._bus_max, str(fence[0]), encode_event(fence[1])]
        for entry in events:
            args += [str(entry.id), encode_event(entry.event)]
        keys = [log_key(response_id, self._partitions), bus_key(self._partition_of(response_id))]
        reply = await self._end.run(self._client, keys, args)
        result: EndResult = reply[0].decode()
        return result

    async def remove(self, response_id: ResponseId) -> None:
        """Forget a response that has ended; may be repeated."""
        await self.remove_all([response_id])

    async def remove_all(self, response_ids: list[ResponseId]) -> None:
        """As `remove`, in one round trip."""
        pipe = self._client.pipeline(transaction=False)
        for response_id in response_ids:
            pipe.unlink(log_key(response_id, self._partitions))
            pipe.zrem(open_key(self._partition_of(response_id)), response_id)
        with map_broker_errors():
            await pipe.execute()

    async def forget(self, response_id: ResponseId) -> None:
        """Take it out of the open index."""
        with map_broker_errors():
            await self._client.zrem(open_key(self._partition_of(response_id)), response_id)

    async def archived(self, ttls_s: Mapping[ResponseId, int]) -> None:
        """After the archive's commit, or where there will be none: give the logs these times to live and close the
        index entries."""
        pipe = self._client.pipeline(transaction=False)
        for response_id, ttl_s in ttls_s.items():
            pipe.expire(log_key(response_id, self._partitions), ttl_s)
            pipe.zrem(open_key(self._partition_of(response_id)), response_id)
        with map_broker_errors():
            await pipe.execute()
