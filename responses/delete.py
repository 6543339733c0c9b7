"""Deleting a response: ended first, so that nobody writes it; then a tombstone; then everything goes: its request,
its dead letters, its log. What it left on the bus is trimmed by time.

A crash between two steps leaves a response that is still there; deleting it again does the rest.
The tombstone is the row without its log: an archiver that was about to insert the log
finds a row and leaves it alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from responses.end import Ender, cancellation
from responses.rows import archived_response
from schemas.archived import ArchivedResponse
from schemas.errors import LogGone
from schemas.ids import ResponseId
from schemas.models import Models
from streams.dead import DeadLetters
from streams.logs import ResponseLogs
from streams.queue import RequestQueue
from streams.retry import retry_harmless


class ErasableArchive(Protocol):
    """What deleting needs of the archive."""

    async def erase(self, response_id: ResponseId, tombstone: ArchivedResponse | None) -> None: ...


class Deleter:
    """Deletes responses wherever they are."""

    def __init__(
        self,
        logs: ResponseLogs,
        archive: ErasableArchive,
        ender: Ender,
        queue_of: Callable[[str], RequestQueue],
        letters: DeadLetters,
        models: Models | None = None,
    ) -> None:
        """With `models` what was deleted before it was archived is counted with its cost."""
        self._logs = logs
        self._letters = letters
        self._models = models
        self._archive = archive
        self._ender = ender
        self._queue_of = queue_of

    async def delete(self, response_id: ResponseId) -> None:
        """Gone from broker and archive on return; may be repeated. Raises BrokerError, ArchiveError."""
        try:
            await self._ender.end(response_id, cancellation())
            raw = await self._logs.read_raw(response_id)
        except LogGone:
            raw = []
        row = archived_response(response_id, raw, self._models) if raw else None
        await self._archive.erase(response_id, _tombstone(row) if row is not None else None)
        if row is not None:
            queue = self._queue_of(row.model)
            await retry_harmless(lambda: queue.remove(response_id))
        await retry_harmless(lambda: self._letters.remove_of(response_id))  # after the request: see `RequestQueue.bury`
        await retry_harmless(lambda: self._logs.remove(response_id))


def _tombstone(row: ArchivedResponse) -> ArchivedResponse:
    return msgspec.structs.replace(row, status="deleted", metadata=None, turn=None, entries=[])
