"""The synthetic engine: token i is ` t<i>`, at a steady pace. For load and fault tests, and to try the API.

No model is behind it. What a request asks for beside text is made by engine/synthetic/script.py, and the
faults that settings or a request's metadata put into it are those of engine/synthetic/faults.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import random
from collections.abc import AsyncGenerator

from engine.base import Delta, Generation, Progress, Vectors
from engine.needs import refuse_what_is_missing
from engine.room import room_for
from engine.synthetic.faults import PREFIX, Behaviour, Pace
from engine.synthetic.script import DEFAULT_LENGTH, Script
from schemas.capabilities import Capabilities
from schemas.errors import ContextTooLong, InvalidRequest
from schemas.requests import EmbeddingInput, GenerationRequest

DEFAULT_DIMENSIONS = 64
_MAX_DIMENSIONS = 4_096
_NO_LIMIT = 1 << 31
_EVERYTHING = Capabilities(
    continues=True, completions=True, tools=True, json_schema=True, logprobs=True, embeddings=True
)
_EMBEDS = Capabilities(generates=False, embeddings=True)


class SyntheticEngine:
    """Generates ` t0 t1 t2 …`: a hole or a repeat in a stream shows at a glance."""

    def __init__(
        self,
        *,
        tokens_per_second: float,
        ttft_ms: float,
        capacity: int,
        jitter_ms: float = 0.0,
        fail_after: int = 0,
        stall_after: int = 0,
        context: int = 0,
        embeds: bool = False,
    ) -> None:
        """`context`: words of prompt and answer together, each counted as a token; 0: no limit."""
        self._behaviour = Behaviour(
            tokens_per_second=tokens_per_second,
            ttft_ms=ttft_ms,
            jitter_ms=jitter_ms,
            fail_after=fail_after,
            stall_after=stall_after,
        )
        self._interval_s = 1 / tokens_per_second
        self._ttft_s = ttft_ms / 1000
        self.capabilities = _EMBEDS if embeds else _EVERYTHING
        self.capacity = capacity
        self.context_length = context

    async def start(self, progress: Progress) -> None:
        """Nothing to load."""

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        request = generation.request
        refuse_what_is_missing(self.capabilities, request)
        input_tokens = _input_tokens(request)
        first = len(generation.prefix_tokens)
        room = self._room(input_tokens, first, generation.least_room)
        if not self._is_plain(request):
            async with contextlib.aclosing(self._scripted(generation, input_tokens, room)) as deltas:
                async for delta in deltas:
                    yield delta
            return
        # Benchmarks run this part for hundreds of streams: it does nothing that plain text does not need.
        loop = asyncio.get_running_loop()
        total = min(request.max_output_tokens or DEFAULT_LENGTH, room)
        due = loop.time() + self._ttft_s
        for index in range(first, total):
            await asyncio.sleep(max(0.0, due - loop.time()))
            due += self._interval_s
            yield Delta(text=f" t{index}", tokens=(index,))
        yield Delta(
            finish_reason="length" if request.max_output_tokens or total < DEFAULT_LENGTH else "stop",
            input_tokens=input_tokens,
            output_tokens=max(0, total - first),
        )

    def _room(self, input_tokens: int, first: int, least: int) -> int:
        """Tokens of the whole answer that the context leaves."""
        if not self.context_length:
            return _NO_LIMIT
        context = self.context_length
        return first + room_for(prompt=input_tokens, prefix=first, context=context, limit=None, least=least)

    def _is_plain(self, request: GenerationRequest) -> bool:
        """Nothing but text is asked for, without a fault."""
        special = request.stop or request.logprobs or request.tools or request.output_format is not None
        return not (special or self._behaviour.has_faults or any(key.startswith(PREFIX) for key in request.metadata))

    async def _scripted(self, generation: Generation, input_tokens: int, room: int) -> AsyncGenerator[Delta, None]:
        behaviour = self._behaviour.changed_by(generation.request.metadata)
        script = Script(generation.request, behaviour, room)
        first = len(generation.prefix_tokens)
        pace = Pace(behaviour, generation.id, first)
        for index in range(first, script.total):
            await pace.wait(index)
            yield script.piece(index)
        rest = script.rest
        yield Delta(
            text=rest.text,
            tokens=rest.tokens if rest.text else (),
            logprobs=rest.logprobs if rest.text else (),
            finish_reason=script.reason,
            input_tokens=input_tokens,
            output_tokens=max(0, script.total + len(rest.tokens) - first),
            reasoning_tokens=script.reasoning_tokens(first),
        )

    async def embed(self, embedding: EmbeddingInput) -> Vectors:
        """Made from a hash of the input, so that the same has the same; of length one."""
        count = DEFAULT_DIMENSIONS if embedding.dimensions is None else embedding.dimensions
        if not 1 <= count <= _MAX_DIMENSIONS:
            raise InvalidRequest(f"dimensions must be 1 to {_MAX_DIMENSIONS}.", param="dimensions")
        tokens = [len(one) if isinstance(one, list) else len(one.split()) for one in embedding.inputs]
        if self.context_length and max(tokens, default=0) > self.context_length:
            raise ContextTooLong(
                f"An input has {max(tokens)} tokens and does not fit the context of {self.context_length} tokens."
            )
        return Vectors([_vector(one, count) for one in embedding.inputs], sum(tokens))

    async def check(self) -> None:
        """Never dies by itself."""

    async def close(self) -> None:
        """Nothing to free."""


def _input_tokens(request: GenerationRequest) -> int:
    if request.prompt is not None:
        return len(request.prompt) if isinstance(request.prompt, list) else len(request.prompt.split())
    return sum(len(message.text.split()) for message in request.prompt_messages())


def _vector(one: str | list[int], count: int) -> list[float]:
    chance = random.Random(hashlib.sha256(repr(one).encode()).digest())
    numbers = [chance.gauss(0.0, 1.0) for _ in range(count)]
    length = math.hypot(*numbers)
    return [number / length for number in numbers]
