"""The synthetic engine: token i is ` t<i>`, at a steady pace. For load and fault tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from engine.base import Delta, Generation, Progress
from schemas.capabilities import Capabilities

DEFAULT_LENGTH = 64
"""Tokens of a response whose request sets no maximum."""


class SyntheticEngine:
    """Generates ` t0 t1 t2 …`: a hole or a repeat in a stream shows at a glance."""

    capabilities = Capabilities(continues=True)
    context_length = 0

    def __init__(self, *, tokens_per_second: float, ttft_ms: float, capacity: int) -> None:
        self._interval_s = 1 / tokens_per_second
        self._ttft_s = ttft_ms / 1000
        self.capacity = capacity

    async def start(self, progress: Progress) -> None:
        """Nothing to load."""

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        loop = asyncio.get_running_loop()
        total = generation.request.max_output_tokens or DEFAULT_LENGTH
        first = len(generation.prefix_tokens)
        due = loop.time() + self._ttft_s
        for index in range(first, total):
            await asyncio.sleep(max(0.0, due - loop.time()))
            due += self._interval_s
            yield Delta(text=f" t{index}", tokens=(index,))
        yield Delta(
            finish_reason="length" if generation.request.max_output_tokens else "stop",
            input_tokens=sum(len(m.text.split()) for m in generation.request.prompt_messages()),
            output_tokens=total - first,
        )

    async def check(self) -> None:
        """Never dies by itself."""

    async def close(self) -> None:
        """Nothing to free."""
