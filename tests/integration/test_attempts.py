"""Which attempts are made, which count, and what an attempt may do to its neighbours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest

from consumers.generation import MAX_TAKES
from engine.base import Delta, Generation, Progress
from schemas.capabilities import Capabilities
from schemas.errors import EngineDead
from schemas.events import Failed
from schemas.ids import ResponseId
from streams.connect import Broker
from streams.dead import DeadLetters
from streams.keys import log_key
from tests.integration.rig import SETTINGS, Rig, synthetic, text_of
from tests.integration.test_worker import write_as
from tests.waiting import until


class GatedEngine:
    """Shows who has begun; the first token of a response comes when the test lets it through."""

    capabilities = Capabilities(continues=True)
    context_length = 0
    capacity = 16

    def __init__(self) -> None:
        self.begun: list[ResponseId] = []
        self.waiting: set[ResponseId] = set()
        self._let_through: dict[ResponseId, asyncio.Event] = {}

    def gate(self, response_id: ResponseId) -> asyncio.Event:
        return self._let_through.setdefault(response_id, asyncio.Event())

    async def start(self, progress: Progress) -> None:
        pass

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        first, total = len(generation.prefix_tokens), generation.request.max_output_tokens or 1
        self.begun.append(generation.id)
        self.waiting.add(generation.id)
        try:
            await self.gate(generation.id).wait()
        finally:
            self.waiting.discard(generation.id)
        for index in range(first, total):
            yield Delta(text=f" t{index}", tokens=(index,))
        yield Delta(finish_reason="length", input_tokens=1, output_tokens=total - first)

    async def check(self) -> None:
        pass

    async def close(self) -> None:
        pass


async def leave_begun(
    rig: Rig, broker: Broker, *, attempts: int = 1, text: str = "", begun: bool = False, **changes: Any
) -> ResponseId:
    """A request whose workers died: the last one after `text`, the others before their first token."""
    await rig.queue.ensure_groups()
    prepared = rig.prepare(30, **changes)
    await rig.logs.accept(prepared.id, prepared.accepted.at_ms, (prepared.accepted, prepared.queued))
    if text:
        await write_as("dead-1", broker, prepared.id, text)
    for attempt in range(2 if text else 1, attempts + 1):
        fence = {"event": f'{{"type":"fence","t":1,"consumer":"dead-{attempt}","boot":"b"}}'}
        await broker.commands.xadd(log_key(prepared.id), fence, id=f"{attempt}-0")
    if begun:
        await broker.commands.xadd(log_key(prepared.id), {"event": '{"type":"in_progress","t":1}'}, id=f"{attempts}-3")
    await rig.queue.send("interactive", prepared.request_entry())
    return prepared.id


async def test_the_policy_of_a_request_goes_before_that_of_its_model(broker: Broker) -> None:
    rig = Rig(broker)
    continued = await leave_begun(rig, broker, text=text_of(7))
    failing = await leave_begun(rig, broker, text=text_of(7), takeover="fail")
    restarting = await leave_begun(rig, broker, text=text_of(7), takeover="restart")
    async with rig.worker():
        assert (await rig.ended(continued)).text == text_of(30)
        for response_id in (failing, restarting):
            transcript = await rig.ended(response_id)
            assert isinstance(transcript.terminal, Failed)
            assert transcript.terminal.error.code == "worker_lost"
            assert transcript.text == text_of(7)


async def test_what_was_begun_and_shown_nothing_is_restarted_but_not_under_fail(broker: Broker) -> None:
    rig = Rig(broker)
    restarted = await leave_begun(rig, broker, begun=True, takeover="restart")
    failing = await leave_begun(rig, broker, begun=True, takeover="fail")
    async with rig.worker():
        assert (await rig.ended(restarted)).text == text_of(30)
        transcript = await rig.ended(failing)
    assert isinstance(transcript.terminal, Failed)
    assert transcript.terminal.error.code == "worker_lost"


async def test_a_response_taken_over_again_and_again_ends_at_last(broker: Broker) -> None:
    rig = Rig(broker)
    await rig.queue.ensure_groups()
    prepared = await rig.ask(30)
    await rig.queue.read("dead-1", "interactive", 1)
    await write_as("dead-1", broker, prepared.id, text_of(1))
    for attempt in range(2, MAX_TAKES + 1):  # each added a token, so none of them counts as failed
        fence = {"event": f'{{"type":"fence","t":1,"consumer":"dead-{attempt}","boot":"b"}}'}
        text = {"event": f'{{"type":"text","t":1,"delta":" t{attempt - 1}","tokens":[{attempt - 1}]}}'}
        await broker.commands.xadd(log_key(prepared.id), fence, id=f"{attempt}-0")
        await broker.commands.xadd(log_key(prepared.id), text, id=f"{attempt}-{attempt + 5}")
    async with rig.worker():
        transcript = await rig.ended(prepared.id)
        await rig.idle()
    assert isinstance(transcript.terminal, Failed)
    assert transcript.terminal.error.code == "max_attempts_exceeded"
    assert transcript.text == text_of(MAX_TAKES)
    assert [stored.letter.attempts for stored in await DeadLetters(broker.commands).newest(10)] == [MAX_TAKES]


async def test_a_suspect_begins_alone_and_its_neighbours_wait_until_it_has_shown_a_token(broker: Broker) -> None:
    rig = Rig(broker)
    engine = GatedEngine()
    async with rig.worker(engine=engine) as worker:
        before = [(await rig.ask(3)).id for _ in range(3)]
        await until(lambda: engine.waiting == set(before), what="three beginnings at once")
        suspect = await leave_begun(rig, broker)
        await until(lambda: worker._isolation.suspects, what="the suspect to wait")
        after = (await rig.ask(3)).id
        engine.gate(before[0]).set()
        await rig.ended(before[0])
        assert set(engine.begun) == set(before), "the suspect waits for those that had begun"
        for response_id in before[1:]:
            engine.gate(response_id).set()
        await until(lambda: engine.waiting == {suspect}, what="the suspect, alone")
        engine.gate(suspect).set()
        engine.gate(after).set()
        assert (await rig.ended(suspect)).text == text_of(30)
        assert (await rig.ended(after)).text == text_of(3)
        assert engine.begun[3:] == [suspect, after]


async def test_a_request_past_its_deadline_is_ended_and_not_started(broker: Broker) -> None:
    rig = Rig(broker)
    engine = GatedEngine()
    prepared = await rig.ask(30, deadline_at_ms=int(time.time() * 1000) - 1)
    async with rig.worker(engine=engine):
        transcript = await rig.ended(prepared.id)
        await rig.idle()
    assert isinstance(transcript.terminal, Failed)
    assert transcript.terminal.error.code == "deadline_exceeded"
    assert not transcript.items
    assert engine.begun == []


async def test_the_requests_of_a_stuck_engine_move_on_and_its_worker_ends_with_an_error(broker: Broker) -> None:
    rig = Rig(broker, settings=msgspec.structs.replace(SETTINGS, engine_stall_s=1, lease_ms=30_000))
    engine = GatedEngine()

    async def serve_stuck() -> ResponseId:
        async with rig.worker("w-1", engine):
            response_id = (await rig.ask(20)).id
            await until(lambda: engine.waiting, what="the request at the stuck engine")
            async with rig.worker("w-2", synthetic()):
                assert (await rig.ended(response_id)).text == text_of(20)
                await rig.idle()
        return response_id

    with pytest.raises(EngineDead, match="gave nothing for 1 s"):
        await serve_stuck()


async def test_the_attempt_at_a_stuck_engine_counts(broker: Broker) -> None:
    rig = Rig(broker, settings=msgspec.structs.replace(SETTINGS, engine_stall_s=1))
    response_id = (await rig.ask(20)).id
    with pytest.raises(EngineDead):
        async with rig.worker("w-1", GatedEngine()) as worker:
            await until(lambda: worker._failed.is_set(), what="the worker to give up")
    assert (await rig.transcript(response_id)).empty_attempts == 1
