"""One client: asks, follows the answer over every cut, and keeps what it saw."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from benchmarks.chaos.asks import CHAT_PATH, RESPONSES_PATH, Ask, Kind
from benchmarks.chaos.connection import Connection, connect, request_bytes
from benchmarks.chaos.record import Record, Segment

_UNFINISHED = ("queued", "in_progress")
_HOP_CHANCE = 0.3
"""Of a client in the background to leave a gateway that lives, in the middle of its stream."""


class Refused(Exception):
    """An answer that no fault explains; its text has status and code."""


class Unavailable(Exception):
    """503: to be tried again."""


class _Status(msgspec.Struct):
    id: str
    status: str = ""


class Client:
    """Asks one thing after another of random gateways."""

    def __init__(
        self, ports: Sequence[int], rng: random.Random, counts: Counter[str], on_accepted: Callable[[Record], None]
    ) -> None:
        self._ports = ports
        self._rng = rng
        self._counts = counts
        self._on_accepted = on_accepted

    async def fetch(self, ask: Ask, patience_s: float) -> None:
        """One response from the request to its end. Raises OSError, Unavailable or Refused where it
        was not accepted; whatever comes after that stands in the record."""
        try:
            async with asyncio.timeout(patience_s):
                record, connection = await self._create(ask)
        except TimeoutError:
            raise Refused(f"no answer to a request for {ask.tokens} tokens ({ask.kind}) in {patience_s} s") from None
        try:
            async with asyncio.timeout(patience_s):
                if ask.kind.is_stream:
                    await self._follow(record, connection)
                elif ask.kind is Kind.POLLED:
                    await self._poll(record)
        except TimeoutError:
            record.is_late = True
        except Refused as exc:
            record.refusal = str(exc)
        finally:
            record.end()

    async def _create(self, ask: Ask) -> tuple[Record, Connection | None]:
        """POST; with the connection where the answer is a stream."""
        body = bytearray()
        record = Record(ask, "")
        is_stream = ask.kind in (Kind.RESPONSES, Kind.CHAT)
        port = self._rng.choice(self._ports)
        request = request_bytes("POST", ask.path, body=ask.body(), headers={"Content-Type": "application/json"})
        connection = None
        try:
            connection = await connect(port, request, record.frames.feed if is_stream else body.extend)
            if not is_stream or connection.status != 200:
                await self._whole(connection)
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        self._check_status(connection, bytes(body))
        if is_stream:
            record.id = _archived_id(connection.headers["location"].rpartition("/")[2].partition("?")[0])
            record.segments.append(Segment(port, record.accepted_at, 0))
        else:
            record.id = _archived_id(msgspec.json.decode(body, type=_Status).id)
            record.answer = b"" if ask.kind.is_background else bytes(body)
        record.accepted_at = time.monotonic()
        self._on_accepted(record)
        return record, connection if is_stream else None

    async def _whole(self, connection: Connection) -> None:
        if not await connection.over:
            raise ConnectionResetError("cut within the answer")

    def _check_status(self, connection: Connection, body: bytes) -> None:
        if connection.status == 503:
            self._counts["503"] += 1
            raise Unavailable
        if connection.status not in (200, 204):
            raise Refused(f"HTTP {connection.status} {body[:300].decode(errors='replace')}")

    async def _follow(self, record: Record, connection: Connection | None) -> None:
        """Read on, at any gateway that answers, until the stream says that it is done."""
        while True:
            if connection is None:
                connection = await self._reopen(record)
            await self._until_cut(record, connection)
            if record.frames.is_done or connection.status == 204:
                return
            connection = None

    async def _until_cut(self, record: Record, connection: Connection) -> None:
        segment = record.segments[-1]
        hop_s = None
        if record.ask.kind is Kind.BACKGROUND and self._rng.random() < _HOP_CHANCE:
            hop_s = self._rng.uniform(0.1, 3.0)
        try:
            await asyncio.wait([connection.over], timeout=hop_s)
        finally:
            connection.close()
            segment.closed_at = time.monotonic()
        if not record.frames.is_done:
            segment.was_cut = connection.over.done()
            self._counts["changes of gateway" if not segment.was_cut else "reconnects"] += connection.status == 200
            record.frames.cut()

    async def _reopen(self, record: Record) -> Connection:
        """A stream from behind what was seen, at any gateway that answers."""
        path, headers = _resume(record)
        while True:
            try:
                return await self._open(record, path, headers)
            except (OSError, Unavailable):
                await self._pause()

    async def _open(self, record: Record, path: str, headers: dict[str, str]) -> Connection:
        port = self._rng.choice(self._ports)
        segment = Segment(port, time.monotonic(), len(record.frames))
        other = bytearray()
        # bytes go to the record only after the status was looked at: an error body is no event
        sink: list[Callable[[bytes], None]] = [other.extend]
        connection = await connect(port, request_bytes("GET", path, headers=headers), lambda data: sink[0](data))
        if connection.status == 200:
            record.frames.feed(bytes(other))
            sink[0] = record.frames.feed
        else:
            await connection.over
            self._check_status(connection, bytes(other))
        record.segments.append(segment)
        return connection

    async def _poll(self, record: Record) -> None:
        path = f"{RESPONSES_PATH}/{record.id}"
        while True:
            await asyncio.sleep(self._rng.uniform(0.2, 0.6))
            body = bytearray()
            try:
                connection = await connect(self._rng.choice(self._ports), request_bytes("GET", path), body.extend)
                await self._whole(connection)
                self._check_status(connection, bytes(body))
            except (OSError, Unavailable):
                continue
            if msgspec.json.decode(body, type=_Status).status not in _UNFINISHED:
                record.answer = bytes(body)
                return

    async def _pause(self) -> None:
        await asyncio.sleep(self._rng.uniform(0.05, 0.3))


def _archived_id(shown: str) -> str:
    return "resp_" + shown.rpartition("_" if shown.startswith("resp_") else "-")[2]


def _resume(record: Record) -> tuple[str, dict[str, str]]:
    """Where the rest of a stream is, by the API's own cursor."""
    last_id = record.frames.last_id
    if record.ask.kind.is_chat:
        path = f"{CHAT_PATH}/chatcmpl-{record.id.removeprefix('resp_')}?stream=true"
        return path, {"Last-Event-ID": last_id} if last_id else {}
    path = f"{RESPONSES_PATH}/{record.id}?stream=true"
    if last_id:
        path += f"&starting_after={int(last_id.partition('-')[2]) - 1}"
    return path, {}
