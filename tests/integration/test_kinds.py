"""What is not plain text, through a worker: reasoning, calls, vectors; and what an engine can not do."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from engine.base import Delta, Generation, Progress, ToolPiece, Vectors
from schemas.capabilities import Capabilities
from schemas.errors import EngineDead
from schemas.events import Completed, Failed
from schemas.requests import EmbeddingInput, OutputFormat
from schemas.tools import Tool
from streams.connect import Broker
from tests.integration.rig import Rig

pytestmark = pytest.mark.parametrize("kind", ["valkey"])

STEPS = [
    Delta(reasoning="h", tokens=(0,)),
    Delta(reasoning="m", tokens=(1,)),
    Delta(text="a", tokens=(2,)),
    Delta(text="b", tokens=(3,)),
    Delta(tool=ToolPiece(0, "f"), tokens=(4,)),
    Delta(tool=ToolPiece(0, "", "{"), tokens=(5,)),
    Delta(tool=ToolPiece(0, "", "}"), tokens=(6,)),
]


class ScriptedEngine:
    """Says STEPS, one token each, and dies after every `lives` of them; embeds a text as its length."""

    capabilities = Capabilities(continues=True, tools=True, json_schema=True, embeddings=True)
    capacity = 4
    context_length = 0

    def __init__(self, lives: int = 100, vectors: int = 100_000) -> None:
        self._lives = lives
        self._vectors = vectors
        self._is_dead = False
        self.batches: list[int] = []

    async def start(self, progress: Progress) -> None:
        self._is_dead = False

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        first = len(generation.prefix_tokens)
        for delta in STEPS[first : first + self._lives]:
            yield delta
        if first + self._lives < len(STEPS):
            self._die()
        yield Delta(finish_reason="stop", input_tokens=1, output_tokens=len(STEPS) - first, reasoning_tokens=2)

    async def embed(self, embedding: EmbeddingInput) -> Vectors:
        self.batches.append(len(embedding.inputs))
        self._vectors -= len(embedding.inputs)
        if self._vectors < 0:
            self._vectors = 100_000
            self._die()
        return Vectors([[float(len(text)), 1.0] for text in embedding.inputs], input_tokens=len(embedding.inputs))

    def _die(self) -> None:
        self._is_dead = True
        raise EngineDead

    async def check(self) -> None:
        if self._is_dead:
            raise EngineDead

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("lives", [1, 2, 3, 100])
async def test_reasoning_text_and_calls_are_continued_wherever_the_engine_died(broker: Broker, lives: int) -> None:
    rig = Rig(broker)
    prepared = await rig.ask(100, tools=[Tool(name="f")])
    async with rig.worker(engine=ScriptedEngine(lives)):
        transcript = await rig.ended(prepared.id)
    assert isinstance(transcript.terminal, Completed), transcript.terminal
    assert [(item.kind, item.content, item.name) for item in transcript.items] == [
        ("reasoning", "hm", ""),
        ("message", "ab", ""),
        ("function_call", "{}", "f"),
    ]
    assert transcript.tokens == list(range(len(STEPS)))
    assert transcript.terminal.usage.output_tokens == len(STEPS)


async def test_what_is_held_to_a_grammar_is_not_continued(broker: Broker) -> None:
    rig = Rig(broker)
    prepared = await rig.ask(100, output_format=OutputFormat())
    async with rig.worker(engine=ScriptedEngine(lives=2)):
        transcript = await rig.ended(prepared.id)
    assert isinstance(transcript.terminal, Failed)
    assert transcript.terminal.error.code == "worker_lost"
    assert transcript.items[0].content == "hm"


async def test_vectors_that_are_there_are_not_made_again_after_the_engine_died(broker: Broker) -> None:
    rig = Rig(broker)
    inputs: list[str | list[int]] = ["x" * i for i in range(1, 151)]
    prepared = await rig.ask(embed=EmbeddingInput(inputs=inputs))
    engine = ScriptedEngine(vectors=100)
    async with rig.worker(engine=engine):
        transcript = await rig.ended(prepared.id)
    assert isinstance(transcript.terminal, Completed), transcript.terminal
    assert engine.batches == [64, 64, 64, 22]
    assert len(transcript.vectors) == len(set(transcript.vectors)) == 150
    assert transcript.terminal.usage.input_tokens == 150
    assert transcript.items == []


async def test_what_the_engine_of_this_worker_can_not_do_fails_by_name(broker: Broker) -> None:
    rig = Rig(broker)
    prepared = await rig.ask(5, logprobs=True)
    async with rig.worker(engine=ScriptedEngine()):
        transcript = await rig.ended(prepared.id)
    assert isinstance(transcript.terminal, Failed)
    assert transcript.terminal.error.code == "capability_missing"
    assert "logprobs" in transcript.terminal.error.message
