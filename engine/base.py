"""The border to the models: one protocol that every engine keeps.

To add an engine: write a class with these members in a file of its own, import
third-party code inside it only, map its errors to EngineError or EngineDead, and
add it to `engine/registry.py`. Everything above this floor knows nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Literal, Protocol

import msgspec

from schemas.ids import ResponseId
from schemas.requests import GenerationRequest

FinishReason = Literal["stop", "length", "content_filter"]
Progress = Callable[[str], None]
"""Told one line at a time what takes long while an engine starts."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine can do beyond plain text."""

    continues: bool
    """It can go on from a prefix of token ids."""


class Delta(msgspec.Struct, frozen=True, gc=False):
    """A step of one generation.

    `tokens` are exactly the ids that `text` stands for: an engine that holds text back
    (a split UTF-8 character, the start of a stop string) holds the ids back with it, so
    that whatever is in the log can be continued from. The last delta has a
    `finish_reason` and the token counts of this generation; its text may be empty.
    """

    text: str = ""
    tokens: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    input_tokens: int = 0
    """Tokens of the prompt alone, without the prefix (last delta only)."""
    output_tokens: int = 0
    """Tokens generated now, without the prefix (last delta only)."""
    cached_tokens: int = 0


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a response, from its start or from a prefix."""

    id: ResponseId
    request: GenerationRequest
    prefix_tokens: tuple[int, ...] = ()
    """Token ids already in the log: generate only what follows; they count against the maximum."""
    prefix_text: str = ""
    """The text that the prefix stands for."""


class Engine(Protocol):
    """A model, ready to generate several responses at once."""

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def capacity(self) -> int:
        """How many generations may run at once."""
        ...

    async def start(self, progress: Progress) -> None:
        """Load the model; returns when the first request can be served. Raises SettingsError or EngineDead."""
        ...

    def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        """The deltas of one generation; closing the iterator aborts it and frees the slot at once.

        Raises EngineError (this request failed), ContextTooLong, or EngineDead.
        """
        ...

    async def check(self) -> None:
        """Raise EngineDead if the engine can not serve."""
        ...

    async def close(self) -> None:
        """Free everything; safe to call twice."""
        ...
