"""`python -m benchmarks.archive`: responses of 200 events that archivers write in a second, beside a bare insert.

The archivers are processes as they are deployed: they read the logs from the broker, check them, compress them and
write them. Then the same rows go into an empty database of the same server by the driver alone: multi-row inserts, as
many rows to a commit as the archivers had. Once with the bytes of the events as they came in, once with the
compressed bytes that the archivers wrote.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import uvloop
from sqlalchemy.ext.asyncio import AsyncConnection

from archive.codec import unpack
from archive.connect import create_engine
from archive.migrate import migrate
from benchmarks.process import cpu_s
from schemas.events import (
    Accepted,
    Completed,
    Fence,
    InProgress,
    ItemAdded,
    ItemDone,
    LogEvent,
    PartAdded,
    PartDone,
    Queued,
    Text,
    TextDone,
    Usage,
    encode_event,
)
from schemas.ids import ResponseId, new_response_id
from schemas.requests import FinishedEntry, GenerationRequest, Message
from schemas.settings import Settings
from streams.connect import Broker
from streams.embedded import EmbeddedBroker
from streams.finished import FinishedStream
from streams.keys import ARCHIVER_GROUP, log_key
from tests.database import SERVER, MariaDB

_EVENTS = 200
_POLL_S = 0.005
_LIMIT_S = 300.0
_WORDS = (" the", " of", " a", " model", " stream", " entry", " gateway", " and", " it", " is", ",", ".", " response")


async def main(responses: int, archivers: int, runs: int, database_url: str) -> None:
    """A table; each database's runs are alternately ours and bare."""
    print(f"{responses:,} responses of {_EVENTS} events, {archivers} archivers, median of {runs} runs:", end="\n\n")
    names = ("archivers, responses/s", "bare insert of the events", "ratio", "bare insert of the blobs", "ratio")
    print(f"| database | {' | '.join(names)} | archivers' CPU, ms each | bytes each, events | blob |")
    print(f"|---|{'---:|' * 8}", flush=True)
    async with _servers(database_url) as servers:
        for name, server in servers.items():
            found = [await _compare(server, responses, archivers) for _ in range(runs)]
            print(f"| {name} | {_cells(found)} |", flush=True)


class _Run(NamedTuple):
    """One run; everything per response."""

    ours_per_s: float
    events_per_s: float
    """Bare, with the events as they came in."""
    blobs_per_s: float
    """Bare, with what the archivers made of them."""
    cpu_ms: float
    """Of the archivers."""
    event_bytes: float
    blob_bytes: float


def _cells(runs: list[_Run]) -> str:
    ours, events, blobs, cpu_ms, event_bytes, blob_bytes = (median(one) for one in zip(*runs, strict=True))
    of_events = median(run.ours_per_s / run.events_per_s for run in runs)
    of_blobs = median(run.ours_per_s / run.blobs_per_s for run in runs)
    rates = f"{ours:,.0f} | {events:,.0f} | {of_events:.2f} | {blobs:,.0f} | {of_blobs:.2f}"
    return f"{rates} | {cpu_ms:.2f} | {event_bytes:,.0f} | {blob_bytes:,.0f}"


class _Server:
    """Where empty databases come from."""

    def __init__(self, folder: Path, mariadb: MariaDB | None = None, url: str = "") -> None:
        self._folder = folder
        self._mariadb = mariadb
        self._url = url
        self._made = 0

    async def database(self) -> str:
        """The URL of an empty database with our tables."""
        self._made += 1
        if self._mariadb is not None:
            url = await self._mariadb.database()
        else:
            url = self._url or f"sqlite+aiosqlite:///{self._folder / f'{self._made}.sqlite3'}"
        await migrate(url, lambda line: None)
        if self._url:
            await _empty(url)
        return url


@asynccontextmanager
async def _servers(database_url: str) -> AsyncIterator[dict[str, _Server]]:
    with tempfile.TemporaryDirectory(prefix="openchat-bench-") as folder, contextlib.ExitStack() as stack:
        path = Path(folder)
        servers = {"SQLite": _Server(path)}
        if database_url:
            servers = {database_url.partition("+")[0]: _Server(path, url=database_url)}
        elif SERVER:
            mariadb = MariaDB(path / "mariadb")
            (path / "mariadb").mkdir()
            mariadb.install()
            stack.callback(mariadb.stop)
            mariadb.start()
            servers["MariaDB"] = _Server(path, mariadb)
        yield servers


async def _compare(server: _Server, responses: int, archivers: int) -> _Run:
    url = await server.database()
    ours, cpu_ms = await _archive(url, responses, archivers)
    rows, logs = await _read_back(url)
    assert len(rows) == len(logs) == responses
    events = [(*log[:-1], b"\n".join(entry.event.encode() for entry in unpack(*log[1:]))) for log in logs]
    return _Run(
        ours,
        await _insert_bare(await server.database(), rows, events),
        await _insert_bare(await server.database(), rows, logs),
        cpu_ms,
        sum(len(log[-1]) for log in events) / responses,
        sum(len(log[-1]) for log in logs) / responses,
    )


async def _archive(url: str, responses: int, archivers: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(prefix="openchat-bench-") as folder:
        async with EmbeddedBroker(folder) as server:
            broker = Broker(server.url, timeout_s=60.0, connections=8)
            finished = FinishedStream(broker.commands)
            async with contextlib.AsyncExitStack() as stack:
                running = [await stack.enter_async_context(_archiver(server.url, url, i)) for i in range(archivers)]
                ids = await _fill(broker, responses)
                await _until_reading(broker, archivers)
                before, began = sum(cpu_s(process.pid) for process in running), time.perf_counter()
                await asyncio.gather(*(finished.send(FinishedEntry(id=one, status="completed")) for one in ids))
                async with asyncio.timeout(_LIMIT_S):
                    while await finished.lag(ARCHIVER_GROUP):
                        await asyncio.sleep(_POLL_S)
                elapsed = time.perf_counter() - began
                used = sum(cpu_s(process.pid) for process in running) - before
            await broker.close()
    return responses / elapsed, used / responses * 1e3


@asynccontextmanager
async def _archiver(redis_url: str, url: str, index: int) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "openchat", "archiver", "--name", f"archiver-{index + 1}"),
        env=os.environ | {"OPENCHAT_REDIS_URL": redis_url, "OPENCHAT_DATABASE_URL": url},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        await process.wait()


async def _until_reading(broker: Broker, archivers: int) -> None:
    """They have looked for work once, so that their start is not measured."""
    client = broker.commands
    async with asyncio.timeout(_LIMIT_S):
        while True:
            clients = await client.client_list()
            if sum(one["cmd"].startswith("xreadgroup") for one in clients) >= archivers:
                return
            await asyncio.sleep(_POLL_S)


async def _fill(broker: Broker, responses: int) -> list[ResponseId]:
    """So many finished logs, of which no archiver knows yet."""
    source = random.Random(1)
    ids = [new_response_id() for _ in range(responses)]
    for response_id in ids:
        pipeline: Any = broker.commands.pipeline(transaction=False)
        for entry_id, event in _log(response_id, source):
            pipeline.xadd(log_key(response_id, 1), {"event": encode_event(event)}, id=entry_id)
        await pipeline.execute()
    return ids


def _log(response_id: ResponseId, source: random.Random) -> list[tuple[str, LogEvent]]:
    request = GenerationRequest(model="m", messages=[Message("user", "What is a stream? " * 10)])
    accepted = Accepted(
        t=0, id=response_id, tenant="default", format="responses", at_ms=time.time_ns() // 1_000_000, request=request
    )
    opening: list[LogEvent] = [InProgress(t=1, engine="synthetic"), ItemAdded(t=2), PartAdded(t=2)]
    closing: list[LogEvent] = [TextDone(t=5000), PartDone(t=5000), ItemDone(t=5000)]
    closing.append(Completed(t=5000, usage=Usage(input_tokens=40, output_tokens=190)))
    texts = _EVENTS - len(opening) - len(closing) - 3
    said = [
        Text(t=20 * i + source.randrange(20), delta=source.choice(_WORDS), tokens=(source.randrange(49_152),))
        for i in range(texts)
    ]
    events: list[tuple[str, LogEvent]] = [("0-1", accepted), ("0-2", Queued(t=0, lane="interactive"))]
    events.append(("1-0", Fence(t=1, consumer="w", boot="b")))
    return events + [(f"1-{number}", event) for number, event in enumerate([*opening, *said, *closing], 3)]


async def _read_back(url: str) -> tuple[list[Any], list[Any]]:
    engine = create_engine(url)
    try:
        async with engine.connect() as connection:
            found = [
                [tuple(row) for row in await connection.exec_driver_sql(f"SELECT * FROM {table} ORDER BY 1")]
                for table in ("responses", "response_logs")
            ]
    finally:
        await engine.dispose()
    return found[0], found[1]


async def _insert_bare(url: str, rows: list[Any], logs: list[Any]) -> float:
    """Responses per second."""
    batch = Settings().archive_batch
    engine = create_engine(url)
    try:
        async with engine.connect() as connection:
            began = time.perf_counter()
            for begin in range(0, len(rows), batch):
                await _insert_rows(connection, "responses", rows[begin : begin + batch])
                await _insert_rows(connection, "response_logs", logs[begin : begin + batch])
                await connection.commit()
            return len(rows) / (time.perf_counter() - began)
    finally:
        await engine.dispose()


async def _insert_rows(connection: AsyncConnection, table: str, rows: list[Any]) -> None:
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    await connection.exec_driver_sql(f"INSERT INTO {table} VALUES ({', '.join([mark] * len(rows[0]))})", rows)


async def _empty(url: str) -> None:
    engine = create_engine(url)
    try:
        async with engine.begin() as connection:
            for table in ("response_logs", "responses", "usage_hours"):
                await connection.exec_driver_sql(f"DELETE FROM {table}")
    finally:
        await engine.dispose()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.archive", description=__doc__)
    parser.add_argument("--responses", type=int, default=3000)
    parser.add_argument("--archivers", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--database-url", default="", help="instead of SQLite and a MariaDB of its own; IT IS EMPTIED")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = _arguments()
    uvloop.run(main(arguments.responses, arguments.archivers, arguments.runs, arguments.database_url))
