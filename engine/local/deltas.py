"""llama.cpp's /completion stream → deltas whose ids are exactly those of their text."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from engine.base import Delta
from engine.local.logprobs import LogprobReader
from engine.local.server import Chunk, LlamaServer, Probability
from engine.local.tokens import PieceTable
from schemas.errors import EngineError


class Completion(msgspec.Struct, frozen=True):
    """What is asked of llama.cpp, and what is known about it."""

    body: dict[str, Any]
    input_tokens: int
    open_end: list[int]
    """The last ids of the prompt that end inside of a character."""
    logprobs: LogprobReader | None = None

    @property
    def has_stops(self) -> bool:
        return "stop" in self.body


class DeltaStream:
    """The deltas of one completion."""

    def __init__(self, server: LlamaServer, pieces: PieceTable, completion: Completion) -> None:
        self._server = server
        self._pieces = pieces
        self._completion = completion
        self._held: list[int] = []
        """Ids that came since the last text."""
        self._odds: list[Probability] = []
        """And how likely they were, where that is asked for."""

    async def read(self) -> AsyncGenerator[Delta, None]:
        """Raises EngineError, InvalidRequest, or EngineDead."""
        late = Delta()
        async with contextlib.aclosing(self._server.chunks(self._completion.body)) as chunks:
            if self._completion.open_end:
                async for first in self._first_character(chunks):
                    yield first
                    if first.finish_reason is not None:
                        return
            async for chunk in chunks:
                self._hold(chunk)
                if chunk.stop:
                    yield await self._last(chunk, late)
                    return
                if late.text:
                    yield late
                    late = Delta()
                if chunk.content:
                    delta, is_whole = await self._delta(chunk.content)
                    if is_whole:
                        yield delta
                    else:
                        late = delta
        raise EngineError("llama.cpp ended its stream too early")

    def _hold(self, chunk: Chunk) -> None:
        self._held.extend(chunk.tokens)
        self._odds.extend(chunk.probabilities)

    async def _delta(self, text: str) -> tuple[Delta, bool]:
        """That of all that is held. Not whole: maybe what a stop string left of a token.

        Nothing may be continued from there, so it goes together with the end.
        """
        stops = self._completion.has_stops
        tokens = await self._pieces.tokens_of(text, self._held, check=stops)
        is_whole = not stops or tokens == self._held
        return await self._made(text, tokens), is_whole

    async def _made(self, text: str, tokens: list[int]) -> Delta:
        reader, odds = self._completion.logprobs, self._odds
        self._held, self._odds = [], []
        logprobs = await reader.read(tokens, odds) if reader is not None else ()
        return Delta(text=text, tokens=tuple(tokens), logprobs=logprobs)

    async def _last(self, chunk: Chunk, late: Delta) -> Delta:
        if chunk.stop_type == "limit" and self._held:  # held back for a stop string; llama.cpp forgets it here
            late = await self._made(await self._pieces.text_of(self._held), self._held)
        return last_delta(chunk, self._completion.input_tokens, late)

    async def _first_character(self, chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Delta, None]:
        """The character that the prompt left open: llama.cpp sends holes for its bytes until it is whole."""
        begun = self._completion.open_end
        shown = (await self._pieces.text_of(begun)).rstrip("\ufffd")
        async for chunk in chunks:
            self._hold(chunk)
            if chunk.stop:
                self._held, self._odds = [], []  # of half a character nothing can be shown
                yield await self._last(chunk, Delta())
                return
            text = await self._pieces.text_of([*begun, *self._held])
            if not text.endswith("\ufffd"):
                yield await self._made(text.removeprefix(shown), self._held)
                return


def last_delta(chunk: Chunk, input_tokens: int, late: Delta) -> Delta:
    """The end, together with what was held back."""
    return Delta(
        text=late.text,
        tokens=late.tokens,
        logprobs=late.logprobs,
        finish_reason="length" if chunk.stop_type == "limit" else "stop",
        input_tokens=input_tokens,
        output_tokens=chunk.tokens_predicted,
        cached_tokens=min(input_tokens, int(chunk.timings.get("cache_n", 0))),
    )
