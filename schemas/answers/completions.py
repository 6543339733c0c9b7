"""Legacy completions: the whole, and the chunks of a stream."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from schemas.answers.chat import CompletionUsage
from schemas.answers.common import Answer, Count, UnixSeconds
from schemas.answers.logprobs import TextTokensObject

CompletionName = Annotated[str, Meta(pattern=r"\Acmpl-[0-9a-f]{32}\Z")]
"""Id of a response as legacy completions show it."""
TextFinishReason = Literal["stop", "length", "content_filter"]


class TextChoice(Answer, frozen=True, kw_only=True):
    index: Count
    text: str
    logprobs: TextTokensObject | None
    finish_reason: TextFinishReason


class TextCompletion(Answer, frozen=True, kw_only=True):
    """A whole completion."""

    id: CompletionName
    object: Literal["text_completion"]
    created: UnixSeconds
    model: str
    choices: list[TextChoice]
    usage: CompletionUsage


class TextChunkChoice(Answer, frozen=True, kw_only=True):
    index: Count
    text: str
    logprobs: TextTokensObject | None
    finish_reason: TextFinishReason | None


class TextCompletionChunk(Answer, frozen=True, kw_only=True):
    """What stands behind `data:` in the stream of a completion."""

    id: CompletionName
    object: Literal["text_completion"]
    created: UnixSeconds
    model: str
    choices: list[TextChunkChoice]
    usage: CompletionUsage | UnsetType | None = UNSET
    """Only where it was asked for: null, and in the last chunk the whole."""
