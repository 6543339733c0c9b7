"""A conversation as a gateway holds it, with an engine that remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from archive.store import Archive
from consumers.archiver import Archiver
from engine.base import Delta, Generation, Progress
from responses.accept import Prepared
from responses.conversation_edits import ConversationEditor
from responses.end import Ender
from responses.history import Histories
from schemas.capabilities import Capabilities
from schemas.conversations import Page
from schemas.ids import ConversationId
from schemas.requests import GenerationRequest, Message
from streams.connect import Broker
from streams.finished import FinishedStream
from streams.keys import log_key
from tests.integration.rig import SETTINGS, Rig
from tests.waiting import until


class Echo:
    """Answers with the last message, and remembers everything that it was asked with."""

    capabilities = Capabilities(tools=True)
    context_length = 0
    capacity = 4

    def __init__(self) -> None:
        self.asked: list[list[Message]] = []

    async def start(self, progress: Progress) -> None:
        pass

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        self.asked.append(generation.request.messages)
        yield Delta(text=f" re: {generation.request.messages[-1].text}")
        yield Delta(finish_reason="stop", input_tokens=1, output_tokens=1)

    async def check(self) -> None:
        pass

    async def close(self) -> None:
        pass


class Talk:
    """A gateway's part: look up what came before, join, accept."""

    def __init__(self, broker: Broker, archive: Archive) -> None:
        self.rig = Rig(broker)
        self.broker = broker
        self.archive = archive
        self.engine = Echo()
        self.histories: Histories = self.rig.histories(archive)
        self.reader = self.rig.conversations(archive)
        self.editor = ConversationEditor(self.reader, archive.conversations, self.rig.turns)
        self.finished = FinishedStream(broker.commands)
        self.ender = Ender(self.rig.logs, self.finished, name="g", boot="g")

    async def begin(self, *messages: Message | str, tenant: str = "default", **changes: Any) -> Prepared:
        new = [Message("user", text) if isinstance(text, str) else text for text in messages]
        request = GenerationRequest(model=self.rig.model.name, messages=new, **changes)
        before = await self.histories.before(tenant, request)
        prepared = Prepared(request, tenant=tenant, format="responses", lane="interactive", history=before.messages)
        await self.histories.join(request, prepared.id, before)
        await self.rig.intake.accept(prepared)
        return prepared

    async def say(self, *messages: Message | str, **changes: Any) -> Prepared:
        prepared = await self.begin(*messages, **changes)
        async with self.rig.worker(engine=self.engine):
            await self.rig.ended(prepared.id)
        return prepared

    @asynccontextmanager
    async def archiving(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        task = asyncio.create_task(Archiver(SETTINGS, self.broker, self.archive, name="a").run(stop))
        try:
            yield
        finally:
            stop.set()
            await task

    async def archived(self, *turns: Prepared, is_gone: bool = True) -> None:
        """Let the archiver come so far; and by default let the logs expire."""

        async def are_in() -> bool:
            return all([await self.archive.exists(turn.id) for turn in turns])

        async with self.archiving():
            await until(are_in, what="the archiver")
        for turn in turns if is_gone else ():
            await self.broker.commands.delete(log_key(turn.id))

    async def conversation(self) -> ConversationId:
        return (await self.editor.create("default", [], {})).id

    async def shown(self, conversation: ConversationId, **page: Any) -> list[str]:
        """The texts of the items."""
        found = await self.reader.page("default", conversation, Page(**{"limit": 100, "is_descending": False, **page}))
        return [msgspec.json.decode(item.body)["content"][0]["text"] for item in found]
