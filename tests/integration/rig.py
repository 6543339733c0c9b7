"""Parts of the pipeline in one process, over a real broker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from archive.store import Archive
from consumers.inference import InferenceWorker
from engine.base import Delta, Engine, Generation, Progress
from engine.synthetic.engine import SyntheticEngine
from formats.transcript import Transcript, transcript_of
from responses.accept import Intake, Prepared
from responses.conversations import ConversationReader
from responses.history import Histories
from responses.read import ResponseReader
from schemas.capabilities import Capabilities
from schemas.errors import BrokerError, EngineDead, LogGone
from schemas.ids import ResponseId
from schemas.models import ModelEntry, Models
from schemas.requests import GenerationRequest, Message
from schemas.settings import Settings
from streams.connect import Broker
from streams.logs import ResponseLogs
from streams.queue import RequestQueue
from streams.turns import ConversationTurns
from tests.waiting import until

SETTINGS = Settings(engine="synthetic", lease_ms=1000, flush_ms=2, drain_grace_s=0)


class CrashingEngine:
    """Dies at every generation after `tokens` tokens; `start` revives it."""

    capabilities = Capabilities(continues=True)
    context_length = 0
    capacity = 4

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._is_dead = False

    async def start(self, progress: Progress) -> None:
        self._is_dead = False

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        first = len(generation.prefix_tokens)
        total = generation.request.max_output_tokens or 8
        for index in range(first, min(total, first + self._tokens)):
            yield Delta(text=f" t{index}", tokens=(index,))
        if first + self._tokens < total:
            self._is_dead = True
            raise EngineDead
        yield Delta(finish_reason="stop", input_tokens=1, output_tokens=total - first)

    async def check(self) -> None:
        if self._is_dead:
            raise EngineDead

    async def close(self) -> None:
        pass


def synthetic(tokens_per_second: float = 100, capacity: int = 16) -> SyntheticEngine:
    return SyntheticEngine(tokens_per_second=tokens_per_second, ttft_ms=0, capacity=capacity)


class NoArchive:
    """Has nothing, and is not to be asked for much."""

    conversations = None

    async def read_log(self, response_id: ResponseId) -> None:
        return None


class Rig:
    """A door, logs and queue of one model, and workers on demand."""

    def __init__(self, broker: Broker, model: ModelEntry | None = None, settings: Settings = SETTINGS) -> None:
        self.broker = broker
        self.settings = settings
        self.model = model or ModelEntry(name="synthetic", engine="synthetic")
        self.logs = ResponseLogs(broker.commands, bus_max_entries=1000, partitions=broker.partitions)
        self.queue = RequestQueue(broker.commands, self.model.name)
        self.turns = ConversationTurns(broker.commands)
        self.intake = self.intake_for(Models([self.model]))

    def intake_for(self, models: Models) -> Intake:
        """A door of a gateway with these models in its file."""
        return Intake(self.settings, models, self.logs, lambda _: self.queue)

    def prepare(self, tokens: int = 20, **changes: Any) -> Prepared:
        request = GenerationRequest(
            model=self.model.name, messages=[Message("user", "hi")], max_output_tokens=tokens, **changes
        )
        return Prepared(request, tenant="default", format="responses", lane="interactive")

    async def ask(self, tokens: int = 20, **changes: Any) -> Prepared:
        prepared = self.prepare(tokens, **changes)
        await self.intake.accept(prepared)
        return prepared

    def conversations(self, archive: Archive) -> ConversationReader:
        """As a gateway reads them."""
        return ConversationReader(self.logs, archive, archive.conversations, self.turns)

    def histories(self, archive: Archive | None = None) -> Histories:
        """What a gateway looks up before it accepts; without an archive only for requests that go on from nothing."""
        found: Any = archive or NoArchive()
        return Histories(self.reader(archive), self.conversations(found), self.turns)

    def reader(self, archive: Archive | None = None) -> ResponseReader:
        """Of logs wherever they are; without an archive in the broker alone."""
        found: Any = archive or NoArchive()
        return ResponseReader(self.logs, found)

    @asynccontextmanager
    async def worker(self, name: str = "w", engine: Engine | None = None) -> AsyncIterator[InferenceWorker]:
        stop = asyncio.Event()
        worker = InferenceWorker(
            self.settings, self.model, engine or synthetic(), self.broker, name=name, pid=os.getpid()
        )
        task = asyncio.create_task(worker.run(stop))
        try:
            yield worker
        finally:
            stop.set()
            async with asyncio.timeout(30):
                await task

    async def transcript(self, response_id: ResponseId) -> Transcript:
        return transcript_of(await self.logs.read(response_id))

    async def ended(self, response_id: ResponseId, timeout_s: float = 20) -> Transcript:
        async def find() -> Transcript | None:
            try:
                transcript = await self.transcript(response_id)
            except (LogGone, BrokerError):
                return None
            return transcript if transcript.terminal is not None else None

        found = await until(find, timeout_s=timeout_s, what="the end of the response")
        assert found is not None
        return found

    async def idle(self) -> None:
        """Wait until nothing is queued or held."""

        async def is_idle() -> bool:
            return await self.queue.depth("interactive") == 0

        await until(is_idle, what="an empty queue")


def text_of(tokens: int) -> str:
    return "".join(f" t{i}" for i in range(tokens))
