"""`openchat replay`: a response from Redis or SQL, at its original pace."""

from __future__ import annotations

import asyncio
import sys

from archive.connect import open_archive
from formats.transcript import transcript_of
from responses.read import ResponseReader
from schemas.errors import ResponseNotFound
from schemas.events import Text
from schemas.ids import parse_response_id
from schemas.settings import Settings
from streams.connect import connect_broker
from streams.logs import ResponseLogs


async def replay(settings: Settings, text: str, *, speed: float) -> None:
    """Print the text; `speed` 2 is twice as fast, 0 at once. Raises ResponseNotFound, BrokerError, ArchiveError."""
    response_id = parse_response_id(text)
    if response_id is None:
        raise ResponseNotFound(f"{text[:100]!r} is no response id: resp_ or chatcmpl- and 32 hex digits")
    async with connect_broker(settings) as broker, open_archive(settings.database_url) as archive:
        logs = ResponseLogs(broker.commands, bus_max_entries=settings.bus_max_entries, partitions=broker.partitions)
        entries = await ResponseReader(logs, archive).read(response_id)
    began = asyncio.get_running_loop().time()
    for entry in entries:
        if isinstance(entry.event, Text):
            due = began + entry.event.t / 1000 / speed if speed else 0.0
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            print(entry.event.delta, end="", flush=True)
    transcript = transcript_of(entries)
    print(f"\n[{transcript.status}, {transcript.last_t} ms, {transcript.attempts} attempts]", file=sys.stderr)
