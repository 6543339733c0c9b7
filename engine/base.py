"""The border to the models: one protocol that every engine keeps.

To add an engine: write a class with these members in a file of its own, import
third-party code inside it only, map its errors to EngineError or EngineDead, and
add it to `engine/registry.py`, or from outside by an entry point (docs/extending.md).
Everything above this floor knows nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Literal, Protocol, runtime_checkable

import msgspec

from schemas.capabilities import Capabilities
from schemas.ids import ResponseId
from schemas.logprobs import TokenLogprob
from schemas.requests import EmbeddingInput, GenerationRequest

FinishReason = Literal["stop", "length", "content_filter"]
"""That tools were called is seen from the pieces: it counts as `stop`."""
Progress = Callable[[str], None]
"""Told one line at a time what takes long while an engine starts."""


class ToolPiece(msgspec.Struct, frozen=True, gc=False):
    """A piece of a tool call. The first of a call has its name; `index` counts the calls of a response from 0."""

    index: int
    name: str = ""
    arguments: str = ""


class Delta(msgspec.Struct, frozen=True, gc=False):
    """A step of one generation: a piece of reasoning, of text, or of a tool call, never two of them.

    `tokens` are exactly the ids that the piece stands for: an engine that holds text back
    (a split UTF-8 character, the start of a stop string, marks that only a parser sees) holds the
    ids back with it, so that whatever is in the log can be continued from. The last delta has a
    `finish_reason` and the token counts of this generation; its piece may be empty. Any other without a piece
    is a sign of life: it still works on it, though nothing is there yet.
    """

    text: str = ""
    tokens: tuple[int, ...] = ()
    reasoning: str = ""
    tool: ToolPiece | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    input_tokens: int = 0
    """Tokens of the prompt alone, without the prefix (last delta only)."""
    output_tokens: int = 0
    """Tokens generated now, without the prefix (last delta only)."""
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    """Of the output tokens (last delta only)."""

    @property
    def has_piece(self) -> bool:
        return bool(self.text or self.reasoning or self.tool is not None)


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a response, from its start or from a prefix."""

    id: ResponseId
    """Of the response; its other choices, which are generations of their own, have `-<choice>` behind it."""
    request: GenerationRequest
    prefix_tokens: tuple[int, ...] = ()
    """Token ids already in the log: generate only what follows; they count against the maximum."""
    prefix_text: str = ""
    """The text that the prefix stands for, without reasoning and tool calls."""
    prefix_pieces: int = 0
    """Pieces of text in the prefix: about as many tokens, where there are no ids."""
    least_room: int = 1
    """Tokens that the context must leave for an answer that has not begun; an engine that can not count leaves it."""


class Vectors(msgspec.Struct, frozen=True):
    """Embeddings, one for each input in its order."""

    vectors: list[list[float]]
    input_tokens: int


class Engine(Protocol):
    """A model, ready to generate several responses at once."""

    @property
    def capabilities(self) -> Capabilities:
        """Known once it has started."""
        ...

    @property
    def capacity(self) -> int:
        """How many generations may run at once."""
        ...

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together, once it has started; 0: not known."""
        ...

    async def start(self, progress: Progress) -> None:
        """Load the model; returns when the first request can be served. Raises SettingsError or EngineDead."""
        ...

    def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        """The deltas of one generation; closing the iterator aborts it and frees the slot at once.

        Raises EngineError (this request failed), ContextTooLong, InvalidRequest, or EngineDead.
        """
        ...

    async def check(self) -> None:
        """Raise EngineDead if the engine can not serve."""
        ...

    async def close(self) -> None:
        """Free everything; safe to call twice."""
        ...


@runtime_checkable
class Embedder(Protocol):
    """What an engine with the capability `embeddings` has as well."""

    async def embed(self, embedding: EmbeddingInput) -> Vectors:
        """The vectors of all inputs. Raises as `generate`."""
        ...
