"""One attempt at one response: take it, generate what is missing, end it.

Everything is decided from the log: after the fence nothing can be added behind our
back, so what it holds is the exact prefix to continue from.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from enum import Enum

import msgspec

from consumers.embedding import vector_events
from consumers.isolation import Isolation, Place
from consumers.metrics import EngineMetrics
from consumers.pace import Pace
from consumers.pieces import piece_events
from consumers.rate import Rate
from consumers.stall import StallWatch
from engine.base import Delta, Engine, Generation
from formats.structure import closing_events, opening_events
from formats.transcript import Status, Transcript, transcript_of
from responses.capabilities import capability_missing
from responses.continuation import obstacle
from responses.end import event_time
from schemas.errors import (
    CapabilityMissing,
    DeadlineExceeded,
    EngineDead,
    EngineError,
    Fenced,
    OpenChatError,
    RequestError,
    WorkerLost,
)
from schemas.events import (
    Completed,
    Entry,
    EntryId,
    ErrorDetail,
    Failed,
    Incomplete,
    InProgress,
    LogEvent,
    Terminal,
    Usage,
)
from schemas.models import ModelEntry
from schemas.requests import EmbeddingInput, RequestEntry
from streams.leases import Leases
from streams.logs import ResponseLogs
from streams.writer import LogAppender
from streams.writers import Writers

log = logging.getLogger(__name__)

_TAKE_TRIES = 8
MAX_TAKES = 20
"""Attempts of any kind: a response that is taken over again and again ends at last."""


class Outcome(Enum):
    """What became of a request at this worker."""

    ENDED = "ended"
    """The log is sealed, by whomever: the bookkeeping may be finished."""
    POISON = "poison"
    """Too many attempts without a token, or too many of any kind."""
    GONE = "gone"
    """There is no log that could be written."""
    UNREADABLE = "unreadable"
    """There is one, and it does not parse."""


class Owned(Exception):
    """A living worker has this response."""

    def __init__(self, consumer: str) -> None:
        super().__init__(consumer)
        self.consumer = consumer


class AttemptContext(msgspec.Struct, frozen=True):
    """What an attempt needs of its worker."""

    consumer: str
    logs: ResponseLogs
    leases: Leases
    writers: Writers
    tokens: Rate
    metrics: EngineMetrics
    engine: Engine
    model: ModelEntry
    max_attempts: int
    isolation: Isolation
    stall: StallWatch
    revive_engine: Callable[[EngineDead], Awaitable[None]]
    """Called after EngineDead; returns when the engine serves again, or raises EngineDead."""


class Attempt:
    """One attempt; `run` writes the log up to its end."""

    def __init__(self, context: AttemptContext, entry: RequestEntry) -> None:
        self._context = context
        self._entry = entry
        self._appender: LogAppender | None = None
        self._transcript = Transcript()
        self._place: Place | None = None

    @property
    def status(self) -> str:
        """As far as this attempt has seen."""
        return str(self._transcript.status)

    @property
    def count(self) -> int:
        """Attempts at this response, as far as this one has seen."""
        return self._transcript.attempts

    async def run(self) -> Outcome:
        """Raises Owned, Fenced, LogGone, EngineDead where the engine can not be revived; BrokerError where
        the response could not be taken, then it may be run again."""
        self._place = await self._context.isolation.begin()
        try:
            outcome = await self._take()
            if outcome is None:
                outcome = await self._write_to_end()
        finally:
            self._place.leave()
        return outcome

    async def _write_to_end(self) -> Outcome:
        appender = self._appender
        assert appender is not None
        try:
            self._finish(await self._generate(appender))
            await appender.flushed()
        finally:
            appender.close()
        return Outcome.ENDED

    async def hand_back(self) -> None:
        """After `run` was cancelled: mark the attempt as handed back, so that it does not count."""
        if self._appender is None or self._appender.error is not None:
            return
        await self._appender.flushed()
        marker = self._context.writers.open(self._entry.id, self._appender.attempt + 1)
        try:
            await marker.take(self._now_ms(), released=True)
        finally:
            marker.close()

    async def _take(self) -> Outcome | None:
        """Write our fence; None once we own the response, with the transcript up to date."""
        attempt = 1  # right for every request that nobody has taken: one round trip
        for _ in range(_TAKE_TRIES):
            appender = self._context.writers.open(self._entry.id, attempt)
            is_written = await self._write_fence(appender)
            entries = await self._read_log(appender)
            # behind a fence that we wrote now there is nothing: else it is one of an earlier run of this worker
            if is_written and self._transcript.last_id == EntryId(attempt, 0):
                self._appender = appender
                if self._transcript.attempts == 1:
                    self._context.metrics.queue_waited(self._transcript.last_t / 1000)
                appender.next_number = self._transcript.next_number
                appender.taken(entries)
                return None
            appender.close()
            outcome = await self._judge()
            if outcome is not None:
                return outcome
            await self._isolate_suspect()
            attempt = self._transcript.last_id.attempt + 1
        raise Fenced

    async def _read_log(self, appender: LogAppender) -> list[Entry]:
        try:
            entries = await self._context.logs.read(self._entry.id)
            self._transcript = transcript_of(entries)
        except BaseException:
            appender.close()
            raise
        return entries

    async def _isolate_suspect(self) -> None:
        """A worker may have died of this request: from now on nobody begins beside it."""
        assert self._place is not None
        if self._transcript.empty_attempts and not self._place.is_alone:
            self._place.leave()
            self._place = await self._context.isolation.begin_alone()

    async def _write_fence(self, appender: LogAppender) -> bool:
        try:
            await appender.take(self._now_ms())
        except Fenced:
            return False
        except BaseException:
            appender.close()
            raise
        return True

    async def _judge(self) -> Outcome | None:
        """Before taking what was taken before: is it ended, owned, or poison?"""
        transcript = self._transcript
        if transcript.terminal is not None:
            return Outcome.ENDED
        fence = transcript.fence
        is_others = fence is not None and not fence.released and fence.consumer != self._context.consumer
        if fence is not None and is_others and await self._context.leases.living([fence.consumer]):
            raise Owned(fence.consumer)
        if transcript.empty_attempts >= self._context.max_attempts or transcript.attempts >= MAX_TAKES:
            return Outcome.POISON
        return None

    async def _generate(self, appender: LogAppender) -> Terminal:
        """Everything up to the terminal event, which is returned and not yet written."""
        left_s = self._time_left_s()
        if left_s == 0:
            return self._failed(DeadlineExceeded())  # not started
        try:
            self._check_capabilities()
            self._check_policy()
            if self._transcript.status is Status.QUEUED:
                self._write(appender, [InProgress(t=self._now_ms(), engine=self._context.model.engine)], urgent=True)
            async with asyncio.timeout(left_s):
                return await self._generate_revived(appender)
        except TimeoutError:
            return self._failed(DeadlineExceeded())
        except EngineDead:
            raise  # not this request's fault: another worker goes on
        except (RequestError, EngineError) as exc:
            log.warning("generation_failed id=%s code=%s error=%s", self._entry.id, exc.code, exc.message)
            return self._failed(exc)

    async def _generate_revived(self, appender: LogAppender) -> Terminal:
        """Generate, and after a crash of the engine go on from what is there."""
        crashes = 0
        while True:
            before = self._transcript.pieces
            try:
                if (wanted := self._entry.request.embed) is not None:
                    return await self._embed(appender, wanted)
                return await self._generate_once(appender)
            except EngineDead as exc:
                crashes = 1 if self._transcript.pieces > before else crashes + 1
                if crashes >= self._context.max_attempts:
                    raise EngineError("The engine died at this request, several times.") from exc
                log.warning("engine_died id=%s error=%s", self._entry.id, exc.message)
                await self._context.revive_engine(exc)
                self._check_policy(is_revived=True)

    async def _generate_once(self, appender: LogAppender) -> Terminal:
        transcript = self._transcript
        generation = Generation(
            id=self._entry.id,
            request=self._entry.request,
            prefix_tokens=tuple(transcript.tokens),
            prefix_text=transcript.text,
            prefix_pieces=transcript.pieces,
        )
        stall = self._context.stall
        copied = transcript.copied_length
        before = Usage(input_tokens=copied, output_tokens=transcript.length - copied)
        pace = Pace(self._context.metrics)
        is_first = True  # the first piece of an attempt does not wait for others
        with stall.waiting():
            async with contextlib.aclosing(self._context.engine.generate(generation)) as deltas:
                async for delta in deltas:
                    stall.heard()
                    if delta.has_piece:
                        pace.heard(len(delta.tokens) or 1)
                        self._write_piece(appender, delta, is_first=is_first)
                        is_first = False
                    if delta.finish_reason is not None:
                        return self._terminal(delta, before)
                    await self._wait_for_room(appender)
        raise EngineError("The engine stopped without a finish reason.")

    async def _embed(self, appender: LogAppender, wanted: EmbeddingInput) -> Terminal:
        """The vectors that are not in the log yet, some at a time."""
        stall = self._context.stall
        batches = vector_events(self._context.engine, wanted, len(self._transcript.vectors), self._now_ms)
        with stall.waiting():
            async with contextlib.aclosing(batches):
                async for events in batches:
                    stall.heard()
                    self._write(appender, events, urgent=False)
                    self._leave_place()
                    await self._wait_for_room(appender)
        return Completed(t=self._now_ms(), usage=Usage(input_tokens=self._transcript.embedded_tokens))

    async def _wait_for_room(self, appender: LogAppender) -> None:
        if appender.is_full:
            with self._context.stall.not_waiting():
                await appender.room()
        appender.raise_error()

    def _write_piece(self, appender: LogAppender, delta: Delta, *, is_first: bool) -> None:
        self._write(appender, piece_events(self._transcript, delta, self._now_ms()), urgent=is_first)
        self._context.tokens.add(len(delta.tokens) or 1)
        if is_first:
            self._leave_place()

    def _leave_place(self) -> None:
        """This attempt has output: others may begin beside it."""
        if self._place is not None:
            self._place.leave()

    def _finish(self, terminal: Terminal) -> None:
        assert self._appender is not None
        complete = isinstance(terminal, Completed)
        if complete and not self._transcript.items and self._entry.request.embed is None:
            events, _ = opening_events(self._transcript, terminal.t, "message")
            self._write(self._appender, events, urgent=True)
        events = [*closing_events(self._transcript, terminal.t, complete=complete), terminal]
        self._write(self._appender, events, urgent=True)

    def _write(self, appender: LogAppender, events: list[LogEvent], *, urgent: bool) -> None:
        for event in events:
            appender.append(event, urgent=urgent)
            self._transcript.note(event)

    def _check_capabilities(self) -> None:
        """The gateway has checked what it knew of; this worker may be another kind. Raises CapabilityMissing."""
        missing = self._context.engine.capabilities.missing_for(self._entry.request)
        if missing is not None:
            model = self._context.model
            raise capability_missing(
                missing, model=self._entry.request.shown_model, engine=model.engine, format=self._entry.format
            )

    def _check_policy(self, *, is_revived: bool = False) -> None:
        """May what another began be taken further, and how? Raises WorkerLost where not; CapabilityMissing for a fork
        of which nothing is generated yet: the gateway knew no worker, or another kind."""
        request, transcript = self._entry.request, self._transcript
        policy = request.takeover or self._context.model.takeover
        if policy == "fail" and (is_revived or self._was_begun()):
            raise WorkerLost
        if not transcript.has_output:
            return
        why = obstacle(self._context.engine.capabilities, request, transcript)
        if transcript.has_own_output and (why is not None or policy != "continue"):
            raise WorkerLost
        if why is not None:
            raise CapabilityMissing(f"The output that this response begins with can not be gone on from: {why}.")

    def _was_begun(self) -> bool:
        """By an attempt before this one. A fork has `in_progress` from the start."""
        if self._transcript.copied:
            return self._transcript.attempts > 1
        return self._transcript.status is not Status.QUEUED

    def _terminal(self, delta: Delta, before: Usage) -> Terminal:
        """`before`: what was there when this generation began; what a fork copied is prompt to it."""
        usage = Usage(
            input_tokens=before.input_tokens + delta.input_tokens,
            output_tokens=before.output_tokens + delta.output_tokens,
            cached_tokens=delta.cached_tokens,
            reasoning_tokens=delta.reasoning_tokens,
        )
        if delta.finish_reason == "length":
            return Incomplete(t=self._now_ms(), usage=usage)
        if delta.finish_reason == "content_filter":
            return Incomplete(t=self._now_ms(), usage=usage, reason="content_filter")
        return Completed(t=self._now_ms(), usage=usage)

    def _failed(self, error: OpenChatError) -> Failed:
        usage = Usage(output_tokens=self._transcript.generated_tokens)
        return Failed(t=self._now_ms(), error=ErrorDetail(error.code, error.message), usage=usage)

    def _time_left_s(self) -> float | None:
        deadline_ms = self._entry.request.deadline_at_ms
        return max(0.0, deadline_ms / 1000 - time.time()) if deadline_ms else None

    def _now_ms(self) -> int:
        """Event time: since acceptance, never below the log's last."""
        if self._transcript.accepted is not None:
            return event_time(self._transcript)
        return max(0, time.time_ns() // 1_000_000 - self._entry.accepted_at_ms)
