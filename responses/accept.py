"""The one door: every request, wherever it comes from, becomes a response here.

First the log (`0-1` accepted, `0-2` queued, what a fork copies, the open index), then the request entry,
and only then may anybody be told that the request was accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

import msgspec

from formats.transcript import BEFORE_OUTPUT
from schemas.errors import BrokerError, QueueFull
from schemas.events import Accepted, Entry, EntryId, LogEvent, Queued
from schemas.ids import ResponseId, new_response_id
from schemas.models import Models
from schemas.requests import Format, GenerationRequest, Lane, Message, RequestEntry
from schemas.settings import Settings
from streams.logs import ResponseLogs
from streams.queue import RequestQueue
from streams.retry import retry_harmless

_MAX_QUEUES = 1_000
"""Held at once; one that is made anew costs next to nothing."""


class Fork(msgspec.Struct, frozen=True):
    """What a response begins with that is a fork of another."""

    of: ResponseId
    after: int
    """Sequence of the last event of the other that is in it."""
    events: Sequence[LogEvent]
    """Copies of those behind `queued`."""


class Prepared:
    """A response that is about to be accepted: its id and its first entries."""

    def __init__(
        self,
        request: GenerationRequest,
        *,
        tenant: str,
        format: Format,
        lane: Lane,
        retry_of: ResponseId | None = None,
        key: str = "",
        history: Sequence[Message] = (),
        fork: Fork | None = None,
        request_id: str = "",
    ) -> None:
        """`request` is what is new; `history`, which only the worker gets, stands before its messages."""
        at_ms = time.time_ns() // 1_000_000
        self.id: ResponseId = new_response_id()
        self.lane: Lane = lane
        self.accepted = Accepted(
            t=0,
            id=self.id,
            tenant=tenant,
            format=format,
            at_ms=at_ms,
            request=request,
            retry_of=retry_of,
            key=key,
            lane=lane,
            fork_of=fork.of if fork is not None else None,
            fork_after=fork.after if fork is not None else 0,
            request_id=request_id,
        )
        self.queued = Queued(t=0, lane=lane)
        self._history = history
        self._copied = fork.events if fork is not None else ()

    @property
    def events(self) -> list[LogEvent]:
        """Those of the first entries."""
        return [self.accepted, self.queued, *self._copied]

    @property
    def entries(self) -> list[Entry]:
        return [Entry(EntryId(0, number), event) for number, event in enumerate(self.events, start=1)]

    def request_entry(self) -> RequestEntry:
        return request_entry(self.accepted, self._history)


def request_entry(accepted: Accepted, history: Sequence[Message]) -> RequestEntry:
    """What the worker gets: the request with everything that came before it."""
    request = accepted.request
    if history:
        request = msgspec.structs.replace(request, messages=[*history, *request.messages])
    return RequestEntry(
        id=accepted.id,
        tenant=accepted.tenant,
        accepted_at_ms=accepted.at_ms,
        request=request,
        format=accepted.format,
        key=accepted.key,
        history=len(history),
        copied=max(0, accepted.fork_after + 1 - BEFORE_OUTPUT),
        request_id=accepted.request_id,
    )


class Intake:
    """Accepts responses for the models of this deployment."""

    def __init__(
        self, settings: Settings, models: Models, logs: ResponseLogs, queue_of: Callable[[str], RequestQueue]
    ) -> None:
        self._settings = settings
        self._models = models
        self._logs = logs
        self._queue_of = queue_of
        self._queues: dict[str, RequestQueue] = {}
        self._queued: list[ResponseId] = []

    def deadline_at_ms(self) -> int:
        """When a response that is accepted now is too late, unix ms."""
        return time.time_ns() // 1_000_000 + self._settings.request_timeout_s * 1000

    async def check_room(self, model: str, lane: Lane) -> None:
        """Raises QueueFull where the lane of the model is at its bound."""
        entry = self._models.get(model)
        bound = (entry.max_queued if entry is not None else 0) or self._settings.max_queued
        if await self._queue(model).depth(lane) >= bound:
            raise QueueFull

    def _queue(self, model: str) -> RequestQueue:
        """Of a model of the models file, or of one that only a worker has announced."""
        queue = self._queues.pop(model, None) or self._queue_of(model)
        self._queues[model] = queue  # the one that was used last is the last to go
        if len(self._queues) > _MAX_QUEUES:
            del self._queues[next(iter(self._queues))]
        return queue

    async def accept(self, prepared: Prepared) -> None:
        """Write log and request entry; both may be repeated, so broker errors are retried.

        Raises BrokerError: then the caller must not say that it was accepted. What got
        as far as the log is in the open index, for the sweep.
        """
        events = prepared.events
        await retry_harmless(lambda: self._logs.accept(prepared.id, prepared.accepted.at_ms, events))
        queue = self._queue(prepared.accepted.request.model)
        await retry_harmless(lambda: queue.send(prepared.lane, prepared.request_entry()))
        self._queued.append(prepared.id)

    async def run_index(self, every_s: float = 1.0) -> None:
        """Take what was queued out of the unqueued index, many at once, until cancelled.

        What stays in it (this process dies, the broker is away) costs the sweep a look.
        """
        while True:
            await asyncio.sleep(every_s)
            queued, self._queued = self._queued, []
            if queued:
                with contextlib.suppress(BrokerError):
                    await self._logs.queued(queued)
