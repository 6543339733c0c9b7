"""What is left to do once a response is decided: finished entry, dead letter, acknowledgement, hand-over.

Order at an end: terminal event → `oc:finished` → acknowledge. Each step may be repeated, so each is
repeated until the broker takes it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from consumers.backoff import Backoff
from responses.end import Ender, failure
from schemas.errors import BadEntry, BrokerError, LogGone
from schemas.ids import ResponseId
from schemas.requests import FinishedEntry
from streams.finished import FinishedStream
from streams.logs import ResponseLogs
from streams.queue import Delivery, RequestQueue

log = logging.getLogger(__name__)

BAD_REQUEST_ENTRY = "bad_request_entry"
"""Code of the end, and reason of the letter."""


class Bookkeeping:
    """Finishes the entries that a worker holds; `deliveries` are all of one response."""

    def __init__(self, queue: RequestQueue, finished: FinishedStream) -> None:
        self._queue = queue
        self._finished = finished

    async def ended(self, response_id: ResponseId, status: str, deliveries: list[Delivery]) -> None:
        """Its log is sealed: tell the archiver, then forget the request."""
        await _until_done(lambda: self._finished.send(FinishedEntry(id=response_id, status=status)))
        await self._finish_all(deliveries)

    async def gone(self, deliveries: list[Delivery], reason: str) -> None:
        """There is no log that could be written."""
        await _until_done(lambda: self._queue.bury(deliveries[0], reason))
        await self._finish_all(deliveries)

    async def let_expire(self, response_id: ResponseId, logs: ResponseLogs, ttl_s: int) -> None:
        """A log that nobody can end, and whose content may not be kept."""
        await _until_done(lambda: logs.archived({response_id: ttl_s}))

    async def poison(self, response_id: ResponseId, deliveries: list[Delivery], ender: Ender, *, attempts: int) -> None:
        """Too many attempts: it fails, and its request is kept as a dead letter."""
        log.error("poison id=%s attempts=%d", response_id, attempts)
        end = failure("max_attempts_exceeded", f"It was tried {attempts} times, and every worker died at it.")
        with contextlib.suppress(LogGone):  # deleted meanwhile
            await _until_done(lambda: ender.end(response_id, end))
        await _until_done(lambda: self._queue.bury(deliveries[0], "max_attempts_exceeded", attempts))
        await self._finish_all(deliveries)

    async def unreadable(self, delivery: Delivery, error: str, ender: Ender) -> None:
        """The entry does not parse: its response, if we can tell which, fails; the entry is kept as a dead letter."""
        response_id = delivery.salvaged_id()
        log.error("dead_letter entry=%s id=%s error=%s", delivery.entry_id, response_id, error)
        if response_id is not None:
            end = failure(BAD_REQUEST_ENTRY, "The queued request can not be read.")
            with contextlib.suppress(LogGone, BadEntry):  # there is nothing that could be ended
                await _until_done(lambda: ender.end(response_id, end))
        await _until_done(lambda: self._queue.bury(delivery, BAD_REQUEST_ENTRY, error=error))

    async def transfer(self, deliveries: list[Delivery], owner: str) -> None:
        """Give the entries to the living worker that has the response."""
        for delivery in deliveries:
            await _until_done(partial(self._queue.transfer, delivery, owner))

    async def _finish_all(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:  # the list may grow meanwhile
            await _until_done(partial(self._queue.finish, delivery))


async def _until_done(call: Callable[[], Awaitable[object]]) -> None:
    """Repeat harmless bookkeeping until the broker takes it."""
    backoff = Backoff()
    while True:
        try:
            await call()
        except BrokerError as exc:
            log.warning("bookkeeping_failed error=%s", exc)
            await backoff.wait()
        else:
            return
