"""The engine `scripted`: what it says is decided by the request alone, in answers.py; here it is said.

It stands in for a model that is good at tools, schemas and pictures, which none that runs on two cores is:
suites of clients test our API with it, not its wit. Token i is piece i of the answer, so any worker can go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

import msgspec

from engine.base import Delta, FinishReason, Generation, Progress, Vectors
from engine.needs import refuse_what_is_missing
from engine.room import room_for
from engine.synthetic.engine import SyntheticEngine
from openchat_scripted.answers import pieces_of
from schemas.capabilities import Capabilities
from schemas.logprobs import LikelyToken, TokenLogprob
from schemas.models import ModelEntry
from schemas.requests import EmbeddingInput, GenerationRequest
from schemas.settings import Settings

SLOTS = 64
CONTEXT = 8_192
PAUSE_S = 0.002
SLOW_PAUSE_S = 0.04
"""Where the prompt has the word "slowly"."""
_LOGPROB = -0.1


def create(entry: ModelEntry, settings: Settings, environ: Mapping[str, str]) -> ScriptedEngine:
    """What the entry point names."""
    return ScriptedEngine(slots=settings.slots or SLOTS, context_length=entry.context_length or CONTEXT)


class ScriptedEngine:
    capabilities = Capabilities(
        continues=True,
        completions=True,
        tools=True,
        json_schema=True,
        logprobs=True,
        images=True,
        embeddings=True,
        reasoning_effort=True,
    )

    def __init__(self, *, slots: int, context_length: int) -> None:
        self.capacity = slots
        self.context_length = context_length
        self._vectors = SyntheticEngine(tokens_per_second=1, ttft_ms=0, capacity=slots, context=context_length)

    async def start(self, progress: Progress) -> None:
        """Nothing to load."""

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        request = generation.request
        refuse_what_is_missing(self.capabilities, request)
        prompt = _prompt_tokens(request)
        first = len(generation.prefix_tokens)
        room = first + room_for(
            prompt=prompt, prefix=first, context=self.context_length, limit=None, least=generation.least_room
        )
        script = _Script(request, min(room, request.max_output_tokens or room))
        pause_s = SLOW_PAUSE_S if "slowly" in _prompt_text(request) else PAUSE_S
        for delta in script.steps[first:]:
            await asyncio.sleep(pause_s)
            yield delta
        yield msgspec.structs.replace(
            script.last,
            finish_reason=script.reason,
            input_tokens=prompt,
            output_tokens=max(0, script.length - first),
            reasoning_tokens=sum(1 for delta in script.steps[first:] if delta.reasoning),
        )

    async def embed(self, embedding: EmbeddingInput) -> Vectors:
        return await self._vectors.embed(embedding)

    async def check(self) -> None:
        """Never dies by itself."""

    async def close(self) -> None:
        """Nothing to free."""


class _Script:
    """The steps of a whole answer: cut at a stop string or at the limit, numbered, with logprobs."""

    def __init__(self, request: GenerationRequest, limit: int) -> None:
        pieces = pieces_of(request)
        self.reason: FinishReason = "stop" if len(pieces) <= limit else "length"
        steps = [_numbered(piece, index, request) for index, piece in enumerate(pieces[:limit])]
        self.length = len(steps)
        self.last = Delta()
        """What of a token a stop string has left: it comes with the end."""
        self.steps = steps
        text = "".join(step.text for step in steps)
        ends = [end for end in (text.find(stop) for stop in request.stop) if end >= 0]
        if ends:
            self._cut(min(ends))

    def _cut(self, left: int) -> None:
        self.reason = "stop"
        for index, step in enumerate(self.steps):
            if len(step.text) > left:
                self.steps, self.length = self.steps[:index], index + 1
                self.last = msgspec.structs.replace(step, text=step.text[:left]) if left else Delta()
                return
            left -= len(step.text)


def _numbered(piece: Delta, index: int, request: GenerationRequest) -> Delta:
    logprobs = (_logprob(piece.text, request.top_logprobs),) if request.logprobs and piece.text else ()
    return msgspec.structs.replace(piece, tokens=(index,), logprobs=logprobs)


def _logprob(text: str, top: int) -> TokenLogprob:
    others = (LikelyToken(f" other{rank}", _LOGPROB - rank) for rank in range(1, top))
    return TokenLogprob(text, _LOGPROB, top=(LikelyToken(text, _LOGPROB), *others) if top else ())


def _prompt_text(request: GenerationRequest) -> str:
    if isinstance(request.prompt, str):
        return request.prompt
    return " ".join(message.text for message in request.prompt_messages())


def _prompt_tokens(request: GenerationRequest) -> int:
    """Words, each counted as a token."""
    return len(request.prompt) if isinstance(request.prompt, list) else len(_prompt_text(request).split())
