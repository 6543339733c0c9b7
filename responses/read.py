"""Reading a response: from Redis while its log lives, from the archive after. One cursor space."""

from __future__ import annotations

from typing import Protocol

from schemas.archived import StoredEntry
from schemas.errors import LogGone, ResponseNotFound
from schemas.events import Accepted, Entry
from schemas.ids import ResponseId
from streams.logs import ResponseLogs, decode_entry

_BACK = 50
"""Logs read at once where one response goes on from another."""


class ArchivedLogs(Protocol):
    """What reading needs of the archive."""

    async def read_log(self, response_id: ResponseId) -> list[StoredEntry] | None: ...

    async def read_back(self, response_id: ResponseId, limit: int) -> dict[ResponseId, list[StoredEntry]]: ...


class ResponseReader:
    """Finds the log of a response, wherever it is."""

    def __init__(self, logs: ResponseLogs, archive: ArchivedLogs) -> None:
        self._logs = logs
        self._archive = archive

    async def read(self, response_id: ResponseId) -> list[Entry]:
        """The whole log, fences included. Raises ResponseNotFound."""
        try:
            return await self._logs.read(response_id)
        except LogGone:
            return await self.read_archived(response_id)

    async def read_archived(self, response_id: ResponseId) -> list[Entry]:
        """The whole log from the archive. Raises ResponseNotFound, ArchiveError."""
        stored = await self._archive.read_log(response_id)
        if stored is None:
            raise ResponseNotFound(f"No response with the id {response_id}.")
        return [decode_entry(entry.id, entry.event.encode()) for entry in stored]

    async def read_back(self, response_id: ResponseId) -> dict[ResponseId, list[Entry]]:
        """The whole log; from the archive also those of some responses that it goes on from, in one query.

        Raises ResponseNotFound, ArchiveError, BrokerError.
        """
        try:
            return {response_id: await self._logs.read(response_id)}
        except LogGone:
            found = await self._archive.read_back(response_id, _BACK)
        if response_id not in found:
            raise ResponseNotFound(f"No response with the id {response_id}.")
        return {one: [decode_entry(e.id, e.event.encode()) for e in entries] for one, entries in found.items()}


def check_tenant(entries: list[Entry], tenant: str) -> None:
    """Another tenant's response does not exist. Raises ResponseNotFound."""
    first = entries[0].event
    if not isinstance(first, Accepted) or first.tenant != tenant:
        raise ResponseNotFound
