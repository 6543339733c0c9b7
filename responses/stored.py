"""Stored responses: the metadata that they have now, and the list of chat completions.

Metadata comes with the request and stands in the log, which nothing changes. A change of it is written to the row, and
then the log is taken out of the broker before its time: so whoever reads the response from then on, at any gateway,
reads it from SQL, where the row's metadata wins. Its stream stays as it was shown first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec

from formats.transcript import Transcript, transcript_of
from schemas.archived import ListedResponse, ResponseQuery
from schemas.conversations import Page
from schemas.errors import ResponseLocked, ResponseNotFound
from schemas.events import Accepted, Entry
from schemas.ids import ResponseId
from streams.logs import ResponseLogs, decode_entry
from streams.retry import retry_harmless

Metadata = dict[str, str]

_SETTLE_S = 5.0
"""Longest wait for the archiver."""
_LOOK_EVERY_S = 0.05
_AT_ONCE = 5
"""Logs that are read at once."""


class RowArchive(Protocol):
    """What it needs of the archive's responses."""

    async def exists(self, response_id: ResponseId) -> bool: ...


class MetadataArchive(Protocol):
    """What it needs of their metadata."""

    async def find(self, response_id: ResponseId) -> Metadata | None: ...

    async def replace(self, tenant: str, response_id: ResponseId, metadata: Metadata) -> bool: ...


class ListedArchive(Protocol):
    """What it needs of the list."""

    async def find(self, tenant: str, query: ResponseQuery, page: Page) -> list[ResponseId]: ...

    async def read(self, response_ids: Sequence[ResponseId]) -> list[ListedResponse]: ...


class StoredResponses:
    """Of one deployment. Everything raises BrokerError and ArchiveError."""

    def __init__(self, logs: ResponseLogs, rows: RowArchive, metadata: MetadataArchive, listed: ListedArchive) -> None:
        self._logs = logs
        self._rows = rows
        self._metadata = metadata
        self._listed = listed

    async def changed_metadata(self, response_id: ResponseId) -> Metadata | None:
        """Of a response that has ended, as it is now. None where it is what the log says."""
        if await self._logs.exists(response_id):
            return None
        return await self._metadata.find(response_id)

    async def change_metadata(self, tenant: str, response_id: ResponseId, metadata: Metadata) -> None:
        """Of a response that has ended, in the place of all that was there; may be repeated.

        Raises ResponseNotFound where it is not stored, ResponseLocked while it is not archived yet.
        """
        await self._settle(response_id)
        if not await self._metadata.replace(tenant, response_id, metadata):
            raise ResponseNotFound(f"The response {response_id} was not stored.")
        await retry_harmless(lambda: self._logs.remove(response_id))

    async def _settle(self, response_id: ResponseId) -> None:
        deadline = time.monotonic() + _SETTLE_S
        while not await self._rows.exists(response_id):
            if time.monotonic() >= deadline:
                raise ResponseLocked("The response is still being stored; try again.")
            await asyncio.sleep(_LOOK_EVERY_S)

    async def find(self, tenant: str, query: ResponseQuery, page: Page) -> list[ResponseId]:
        """Chat completions of a tenant that are stored and can be shown, by the time when they were accepted."""
        return await self._listed.find(tenant, query, page)

    async def read(self, response_ids: Sequence[ResponseId]) -> AsyncIterator[Transcript]:
        """One after the other, with the metadata that they have now; without those that were deleted since."""
        for i in range(0, len(response_ids), _AT_ONCE):
            for one in await self._listed.read(response_ids[i : i + _AT_ONCE]):
                entries = [decode_entry(entry.id, entry.event.encode()) for entry in one.entries]
                yield transcript_of(with_metadata(entries, one.metadata))
                await asyncio.sleep(0)  # others want to be served meanwhile


def with_metadata(entries: Sequence[Entry], metadata: Metadata | None) -> list[Entry]:
    """A log as if it had been asked for with this metadata; with its own where that is None."""
    first, *rest = entries
    if metadata is None or not isinstance(first.event, Accepted):
        return [first, *rest]
    request = msgspec.structs.replace(first.event.request, metadata=metadata)
    return [Entry(first.id, msgspec.structs.replace(first.event, request=request)), *rest]
