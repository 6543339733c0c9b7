"""Several choices of one response through a worker: at the same time, one after another, taken over, ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import pytest

from engine.base import Delta, Generation, Progress
from formats.transcript import Transcript, transcript_of
from responses.end import Ender, cancellation
from schemas.capabilities import Capabilities
from schemas.errors import EngineDead, EngineError
from schemas.events import Cancelled, Completed, Entry, Failed, ItemDone, Usage, encode_event
from schemas.ids import ResponseId
from schemas.requests import MAX_CHOICES
from streams.connect import Broker
from streams.control import ControlStream
from streams.finished import FinishedStream
from streams.keys import log_key
from streams.replication import Replication
from tests.integration.rig import SETTINGS, Rig
from tests.waiting import until

pytestmark = pytest.mark.parametrize("kind", ["valkey"])

SEED = 10
POISON = "the engine dies of it"


class SeededEngine:
    """Every choice says something else: token i of seed s is ` s.i`, and there are s of them."""

    capabilities = Capabilities(continues=True, completions=True)
    context_length = 0

    def __init__(self, capacity: int = 8, *, lives: int = 1000, fails_at: int = 0, interval_s: float = 0.0) -> None:
        """`lives`: tokens of a generation after which the engine dies; `fails_at`: a seed that is an error."""
        self.capacity = capacity
        self._lives = lives
        self._fails_at = fails_at
        self._interval_s = interval_s
        self._is_dead = False
        self.starts = 0
        self.begun: list[tuple[ResponseId, int]] = []
        """Generations, and with how many tokens before them."""
        self.running: set[ResponseId] = set()
        self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()
        """Closed, no token comes."""

    async def start(self, progress: Progress) -> None:
        self._is_dead = False
        self.starts += 1

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        request, first = generation.request, len(generation.prefix_tokens)
        seed = request.seed or 0
        assert request.choices == 1
        assert generation.id not in self.running, "two generations with one id"
        self.begun.append((generation.id, first))
        self.running.add(generation.id)
        self.most = max(self.most, len(self.running))
        try:
            for index in range(first, seed):
                await self.gate.wait()
                await asyncio.sleep(self._interval_s)
                if request.prompt == POISON:
                    await asyncio.sleep(0.03)  # others come further meanwhile
                    self._is_dead = True
                if seed == self._fails_at and index == seed // 2:
                    raise EngineError("as it was told")
                if index - first == self._lives or self._is_dead:
                    self._is_dead = True
                    raise EngineDead
                yield Delta(text=token(request.prompt, seed, index), tokens=(index,))
            prompt = len(request.prompt) if request.prompt else 5
            yield Delta(finish_reason="stop", input_tokens=prompt, output_tokens=seed - first, cached_tokens=1)
        finally:
            self.running.discard(generation.id)

    async def check(self) -> None:
        if self._is_dead:
            raise EngineDead

    async def close(self) -> None:
        pass


def token(prompt: Any, seed: int, index: int) -> str:
    return f" {prompt or ''}{seed}.{index}"


def said(seed: int, prompt: str = "") -> str:
    return "".join(token(prompt, seed, index) for index in range(seed))


def texts(transcript: Transcript) -> list[str]:
    return [choice.text for choice in transcript.choices]


async def test_choices_run_at_the_same_time_and_each_is_whole(broker: Broker) -> None:
    rig, engine = Rig(broker), SeededEngine(interval_s=0.005)
    async with rig.worker(engine=engine) as worker:
        prepared = await rig.ask(100, n=3, seed=SEED)
        transcript = await rig.ended(prepared.id)
        await rig.idle()
        await until(lambda: worker._free == engine.capacity, what="every slot free again")
    assert texts(transcript) == [said(SEED), said(SEED + 1), said(SEED + 2)]
    assert engine.most == 3
    items = [entry.event.choice for entry in await rig.logs.read(prepared.id) if hasattr(entry.event, "delta")]
    assert items != sorted(items), "nothing interleaves"
    ends = [entry.event.end for entry in await rig.logs.read(prepared.id) if isinstance(entry.event, ItemDone)]
    assert [end.left for end in ends if end is not None] == [2, 1, 0]
    assert isinstance(transcript.terminal, Completed)
    assert transcript.terminal.usage == Usage(input_tokens=5, output_tokens=10 + 11 + 12, cached_tokens=1)
    assert transcript.attempts == 1


async def test_every_prompt_has_its_choices_and_counts_once(broker: Broker) -> None:
    rig, engine = Rig(broker), SeededEngine()
    async with rig.worker(engine=engine):
        prepared = await rig.ask(100, prompts=["aa", "bbb"], n=2, seed=SEED)
        transcript = await rig.ended(prepared.id)
    assert texts(transcript) == [said(10, "aa"), said(11, "aa"), said(12, "bbb"), said(13, "bbb")]
    assert isinstance(transcript.terminal, Completed)
    assert transcript.terminal.usage == Usage(input_tokens=2 + 3, output_tokens=46, cached_tokens=2)


async def test_taken_over_anywhere_each_choice_goes_on_and_those_that_have_ended_do_not(broker: Broker) -> None:
    rig = Rig(broker)
    async with rig.worker(engine=SeededEngine(capacity=2)):
        prepared = await rig.ask(100, n=3, seed=SEED)
        right = await rig.ended(prepared.id)
    whole = [entry for entry in await rig.logs.read(prepared.id) if not entry.id.is_fence]
    ends = [i for i, entry in enumerate(whole) if isinstance(entry.event, ItemDone) and entry.event.end]
    assert len(whole) - ends[0] > 10, "none has ended while another is in the middle"
    engine = SeededEngine(capacity=4)
    cut = {await leave_at(rig, broker, whole[:count]): count for count in range(3, len(whole))}
    async with rig.worker(engine=engine):
        for response_id, count in cut.items():
            transcript = await rig.ended(response_id)
            assert texts(transcript) == texts(right), f"cut at {count}"
            assert [choice.tokens for choice in transcript.choices] == [choice.tokens for choice in right.choices]
            assert transcript.terminal == terminal_like(right, transcript)
            prefix = transcript_of(whole[:count])
            missing = {choice.index: len(choice.tokens) for choice in prefix.choices if choice.end is None}
            missing |= {index: 0 for index in range(3) if index >= len(prefix.choices)}
            assert begun_of(engine, response_id) == missing, f"cut at {count}"
        await rig.idle()
    assert engine.most <= 4


def terminal_like(right: Transcript, transcript: Transcript) -> object:
    assert isinstance(right.terminal, Completed)
    assert transcript.terminal is not None
    return Completed(t=transcript.terminal.t, usage=right.terminal.usage)


def begun_of(engine: SeededEngine, response_id: ResponseId) -> dict[int, int]:
    """Choice → tokens before it."""
    names = [(name, first) for name, first in engine.begun if name.startswith(response_id)]
    return {int(name[len(response_id) + 1 :] or 0): first for name, first in names}


async def leave_at(rig: Rig, broker: Broker, entries: list[Entry]) -> ResponseId:
    """A request whose worker died after these entries."""
    await rig.queue.ensure_groups()
    prepared = rig.prepare(100, n=3, seed=SEED)
    await rig.logs.accept(prepared.id, prepared.accepted.at_ms, (prepared.accepted, prepared.queued))
    pipe = broker.commands.pipeline(transaction=False)
    pipe.xadd(log_key(prepared.id), {"event": '{"type":"fence","t":1,"consumer":"dead-1","boot":"b"}'}, id="1-0")
    for entry in entries[2:]:
        pipe.xadd(log_key(prepared.id), {"event": encode_event(entry.event)}, id=f"1-{entry.id.number}")
    await pipe.execute()
    await rig.queue.send("interactive", prepared.request_entry())
    return prepared.id


async def test_after_a_crash_of_the_engine_each_choice_goes_on_from_its_own_place(broker: Broker) -> None:
    rig, engine = Rig(broker), SeededEngine(lives=4)
    async with rig.worker(engine=engine) as worker:
        prepared = await rig.ask(100, n=3, seed=SEED)
        transcript = await rig.ended(prepared.id)
        await until(lambda: worker._free == engine.capacity, what="every slot free again")
    assert texts(transcript) == [said(SEED), said(SEED + 1), said(SEED + 2)]
    assert isinstance(transcript.terminal, Completed), transcript.terminal
    assert transcript.terminal.usage.output_tokens == 33
    assert len(engine.begun) > 3


async def test_a_choice_of_which_the_engine_dies_fails_the_response_soon_however_far_others_come(
    broker: Broker,
) -> None:
    rig, engine = Rig(broker), SeededEngine(interval_s=0.001)
    async with rig.worker(engine=engine) as worker:
        prepared = await rig.ask(100, prompts=["a", "b", POISON, "c"], seed=2000)
        transcript = await rig.ended(prepared.id)
        await until(lambda: worker._free == engine.capacity, what="every slot free again")
    assert isinstance(transcript.terminal, Failed)
    assert transcript.terminal.error.code == "engine_error"
    assert engine.starts - 1 <= SETTINGS.max_attempts + 2
    assert all(choice.pieces > 5 for choice in transcript.choices if choice.index != 2)
    assert transcript.choices[2].pieces == 0


async def test_a_response_never_has_more_generations_than_there_are_slots_and_others_are_served(
    broker: Broker,
) -> None:
    rig, engine = Rig(broker), SeededEngine(capacity=2, interval_s=0.01)
    async with rig.worker(engine=engine):
        large = await rig.ask(100, n=6, seed=30)
        await until(lambda: len(engine.running) == 2, what="two choices at the same time")
        small = [(await rig.ask(100, seed=3)).id for _ in range(3)]
        for response_id in small:
            assert (await rig.ended(response_id)).text == said(3)
        ended = (await rig.transcript(large.id)).choices
        assert sum(choice.end is not None for choice in ended) < 6, "they had to wait for all choices"
        transcript = await rig.ended(large.id)
        await rig.idle()
    assert texts(transcript) == [said(30 + choice) for choice in range(6)]
    assert engine.most == 2


async def test_on_one_slot_choices_run_one_after_another(broker: Broker) -> None:
    rig, engine = Rig(broker), SeededEngine(capacity=1)
    async with rig.worker(engine=engine):
        transcript = await rig.ended((await rig.ask(100, n=3, seed=SEED)).id)
    assert texts(transcript) == [said(SEED), said(SEED + 1), said(SEED + 2)]
    assert engine.most == 1


async def test_a_request_that_is_not_started_keeps_no_slots(broker: Broker) -> None:
    rig, engine = Rig(broker), SeededEngine()
    async with rig.worker(engine=engine) as worker:
        prepared = await rig.ask(100, n=4, seed=SEED, deadline_at_ms=int(time.time() * 1000) - 1)
        await rig.ended(prepared.id)
        await rig.idle()
        await until(lambda: worker._free == engine.capacity, timeout_s=5, what="every slot free again")
    assert not engine.begun


async def test_one_choice_that_fails_ends_the_others_and_the_response(broker: Broker) -> None:
    rig, engine = Rig(broker), SeededEngine(fails_at=SEED, interval_s=0.005)
    async with rig.worker(engine=engine) as worker:
        prepared = await rig.ask(100, n=3, seed=SEED)
        transcript = await rig.ended(prepared.id)
        await until(lambda: worker._free == engine.capacity, what="every slot free again")
    assert isinstance(transcript.terminal, Failed)
    assert transcript.terminal.error.code == "engine_error"
    assert transcript.terminal.usage.output_tokens == len(transcript.tokens)
    assert not engine.running
    assert not transcript.open_items
    assert {item.status for item in transcript.items} == {"incomplete"}


@pytest.mark.parametrize("how", ["cancel", "fail"])
async def test_a_response_with_as_many_choices_as_there_may_be_ends_in_one_piece(broker: Broker, how: str) -> None:
    rig = Rig(broker)
    engine = SeededEngine(MAX_CHOICES, fails_at=SEED + MAX_CHOICES - 1 if how == "fail" else 0, interval_s=0.01)
    engine.gate.clear()
    async with rig.worker(engine=engine):
        prepared = await rig.ask(500, n=MAX_CHOICES, seed=SEED)
        await until(lambda: len(engine.running) == MAX_CHOICES, what="all choices")
        engine.gate.set()
        await until(partial(has_text, rig, prepared.id), what="a first text")
        if how == "cancel":
            await ender(broker, rig).end(prepared.id, cancellation())
        transcript = await rig.ended(prepared.id)
        await rig.idle()
    assert isinstance(transcript.terminal, Cancelled if how == "cancel" else Failed)
    assert len(transcript.choices) == MAX_CHOICES
    assert not transcript.open_items


@pytest.mark.parametrize("how", ["cancel", "deadline"])
async def test_an_end_from_outside_frees_the_slots_of_all_choices(broker: Broker, how: str) -> None:
    rig, engine = Rig(broker), SeededEngine(interval_s=0.05)
    deadline = {"deadline_at_ms": int(time.time() * 1000) + 700} if how == "deadline" else {}
    async with rig.worker(engine=engine) as worker:
        prepared = await rig.ask(500, n=4, seed=400, **deadline)
        await until(lambda: len(engine.running) == 4, what="four choices")
        await until(partial(has_text, rig, prepared.id), what="a first text")
        if how == "cancel":
            await ender(broker, rig).end(prepared.id, cancellation())
        transcript = await rig.ended(prepared.id)
        await until(lambda: not engine.running and worker._free == engine.capacity, timeout_s=2, what="free slots")
        await rig.idle()
    assert isinstance(transcript.terminal, Cancelled if how == "cancel" else Failed)
    assert not transcript.open_items
    assert transcript.terminal.usage.output_tokens == len(transcript.tokens)


async def has_text(rig: Rig, response_id: ResponseId) -> bool:
    return (await rig.transcript(response_id)).has_output


def ender(broker: Broker, rig: Rig) -> Ender:
    finished = FinishedStream(broker.commands, Replication(0))
    return Ender(rig.logs, finished, name="g", boot="b", control=ControlStream(broker.commands))


async def test_a_draining_worker_hands_all_choices_over(broker: Broker) -> None:
    rig = Rig(broker)
    engine = SeededEngine(interval_s=0.02)
    async with rig.worker("w-1", engine):
        prepared = await rig.ask(100, n=3, seed=40)
        await until(lambda: len(engine.running) == 3, what="three choices")
        await until(partial(has_text, rig, prepared.id), what="a first text")
    assert not engine.running
    async with rig.worker("w-2", SeededEngine()):
        transcript = await rig.ended(prepared.id)
    assert texts(transcript) == [said(40), said(41), said(42)]
    assert (transcript.attempts, transcript.empty_attempts) == (2, 0)
