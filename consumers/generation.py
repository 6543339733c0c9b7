"""One attempt at one response: take it, generate what is missing, end it.

Everything is decided from the log: after the fence nothing can be added behind our
back, so what it holds is the exact prefix to continue from.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from enum import Enum

from consumers.choices import generate_choices
from consumers.context import AttemptContext
from consumers.embedding import vector_events
from consumers.isolation import Place
from consumers.output import Output
from consumers.slots import ResponseSlots
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
    InProgress,
    Terminal,
    Usage,
)
from schemas.requests import EmbeddingInput, RequestEntry
from streams.writer import LogAppender

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


class Attempt:
    """One attempt; `run` writes the log up to its end."""

    def __init__(self, context: AttemptContext, entry: RequestEntry, slots: ResponseSlots) -> None:
        self._context = context
        self._entry = entry
        self._slots = slots
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
        appender, place = self._appender, self._place
        assert appender is not None
        assert place is not None
        output = Output(appender, self._transcript, place, self._context.stall)
        try:
            self._finish(output, await self._generate(output))
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

    async def _generate(self, output: Output) -> Terminal:
        """Everything up to the terminal event, which is returned and not yet written."""
        left_s = self._time_left_s()
        if left_s == 0:
            return self._failed(DeadlineExceeded())  # not started
        try:
            self._check_capabilities()
            self._check_policy()
            if self._transcript.status is Status.QUEUED:
                output.write([InProgress(t=output.now_ms(), engine=self._context.model.engine)], urgent=True)
            async with asyncio.timeout(left_s):
                return await self._generate_revived(output)
        except TimeoutError:
            return self._failed(DeadlineExceeded())
        except EngineDead:
            raise  # not this request's fault: another worker goes on
        except (RequestError, EngineError) as exc:
            log.warning("generation_failed id=%s code=%s error=%s", self._entry.id, exc.code, exc.message)
            return self._failed(exc)

    async def _generate_revived(self, output: Output) -> Terminal:
        """Generate, and after a crash of the engine go on from what is there."""
        crashes = 0
        while True:
            before, is_careful = self._transcript.pieces, crashes > 0 or self._transcript.attempts > 1
            try:
                if (wanted := self._entry.request.embed) is not None:
                    return await self._embed(output, wanted)
                return await generate_choices(self._context, self._entry, output, self._slots, is_careful=is_careful)
            except EngineDead as exc:
                crashes = 1 if self._transcript.pieces > before else crashes + 1
                if crashes >= self._context.max_attempts:
                    raise EngineError("The engine died at this request, several times.") from exc
                log.warning("engine_died id=%s error=%s", self._entry.id, exc.message)
                await self._context.revive_engine(exc)
                self._check_policy(is_revived=True)

    async def _embed(self, output: Output, wanted: EmbeddingInput) -> Terminal:
        """The vectors that are not in the log yet, some at a time."""
        stall = self._context.stall
        batches = vector_events(self._context.engine, wanted, len(self._transcript.vectors), output.now_ms)
        with stall.waiting():
            async with contextlib.aclosing(batches):
                async for events in batches:
                    stall.heard()
                    output.write(events, urgent=False)
                    output.leave_place()
                    await output.room()
        return Completed(t=output.now_ms(), usage=Usage(input_tokens=self._transcript.embedded_tokens))

    def _finish(self, output: Output, terminal: Terminal) -> None:
        transcript = self._transcript
        complete = isinstance(terminal, Completed)
        if complete and not transcript.items and self._entry.request.embed is None:
            events, _ = opening_events(transcript, transcript.choices[0], terminal.t, "message")
            output.write(events, urgent=True)
        output.write([*closing_events(transcript, terminal.t, complete=complete), terminal], urgent=True)

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
        request, transcript, can = self._entry.request, self._transcript, self._context.engine.capabilities
        policy = request.takeover or self._context.model.takeover
        if policy == "fail" and (is_revived or self._was_begun()):
            raise WorkerLost
        begun = [choice for choice in transcript.choices if choice.pieces and choice.end is None]
        why = next((why for choice in begun if (why := obstacle(can, request, choice)) is not None), None)
        is_generated = bool(transcript.vectors) or any(choice.has_own_output for choice in begun)
        if is_generated and (policy != "continue" or why is not None):
            raise WorkerLost
        if why is not None:
            raise CapabilityMissing(f"The output that this response begins with can not be gone on from: {why}.")

    def _was_begun(self) -> bool:
        """By an attempt before this one. A fork has `in_progress` from the start."""
        if self._transcript.copied:
            return self._transcript.attempts > 1
        return self._transcript.status is not Status.QUEUED

    def _failed(self, error: OpenChatError) -> Failed:
        detail = ErrorDetail(error.code, error.message)
        return Failed(t=self._now_ms(), error=detail, usage=self._transcript.usage)

    def _time_left_s(self) -> float | None:
        deadline_ms = self._entry.request.deadline_at_ms
        return max(0.0, deadline_ms / 1000 - time.time()) if deadline_ms else None

    def _now_ms(self) -> int:
        """Event time: since acceptance, never below the log's last."""
        if self._transcript.accepted is not None:
            return event_time(self._transcript)
        return max(0, time.time_ns() // 1_000_000 - self._entry.accepted_at_ms)
