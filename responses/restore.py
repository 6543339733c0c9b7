"""What a failover of the broker took from a log, put back from a gateway's copy.

A worker that lives puts its own entries back (`streams.writer`). Where it died too, the gateways still hold
what they have shown. They may write it again under the same ids, as long as no newer entry is there: once
another attempt has taken the log, that one's word counts and the stream that was shown has diverged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from formats.transcript import status_of
from responses.accept import request_entry
from responses.history import Histories
from schemas.events import TERMINAL, Accepted, Entry, Queued
from schemas.ids import ResponseId
from schemas.requests import FinishedEntry, RequestEntry
from streams.finished import FinishedStream
from streams.logs import ResponseLogs
from streams.queue import RequestQueue

log = logging.getLogger(__name__)


class KnowingArchive(Protocol):
    """What restoring needs of the archive."""

    async def exists(self, response_id: ResponseId) -> bool: ...


class Restorer:
    """Puts lost entries back."""

    def __init__(
        self,
        logs: ResponseLogs,
        archive: KnowingArchive,
        finished: FinishedStream,
        queue_of: Callable[[str], RequestQueue],
        histories: Histories,
    ) -> None:
        self._logs = logs
        self._archive = archive
        self._finished = finished
        self._queue_of = queue_of
        self._histories = histories

    async def restore(self, entries: list[Entry]) -> int:
        """`entries`: a log from its start on, fences included, as it was shown. How many of them were put back: none
        where the log has them, went on without them, or was archived or deleted. May be repeated.

        Raises BrokerError, ArchiveError; RequestError where what came before it is not there any more.
        """
        accepted, queued, last = entries[0].event, entries[1].event, entries[-1].event
        assert isinstance(accepted, Accepted)
        assert isinstance(queued, Queued)
        [found] = await self._logs.last_entries([accepted.id])
        missing = [entry for entry in entries if found is None or entry.id > found.id]
        if not missing or (found is None and await self._archive.exists(accepted.id)):
            return 0
        at_ms = accepted.at_ms
        request = None if isinstance(last, TERMINAL) else await self._request_entry(accepted)
        if not await self._logs.put_back(
            accepted.id, found, missing, accepted_at_ms=at_ms, seal=isinstance(last, TERMINAL)
        ):
            return 0
        log.warning("put_back id=%s entries=%d from=%s", accepted.id, len(missing), missing[0].id)
        if isinstance(last, TERMINAL):
            await self._finished.send(FinishedEntry(id=accepted.id, status=str(status_of(last))))
        elif request is not None:  # it may be lost too, and a second one does no harm
            await self._queue_of(accepted.request.model).send(queued.lane, request)
        return len(missing)

    async def _request_entry(self, accepted: Accepted) -> RequestEntry:
        history = await self._histories.before(accepted.tenant, accepted.request, accepted.id)
        return request_entry(accepted, history.messages)
