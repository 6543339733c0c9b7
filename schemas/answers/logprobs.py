"""How likely tokens were, as chat completions and the Responses API write it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from schemas.answers.common import Answer, Count


class LikelyTokenObject(Answer, frozen=True, kw_only=True):
    """A token that could have stood there."""

    token: str
    logprob: float
    """Natural logarithm of its probability."""
    bytes: list[Annotated[int, Meta(ge=0, le=255)]]


class TokenObject(LikelyTokenObject, frozen=True, kw_only=True):
    """A token that was chosen, and the most likely ones beside it."""

    top_logprobs: list[LikelyTokenObject]


class TokensObject(Answer, frozen=True, kw_only=True):
    """Of a choice of chat completions."""

    content: list[TokenObject]
    refusal: None


class TextTokensObject(Answer, frozen=True, kw_only=True):
    """Of a choice of legacy completions: parallel lists."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[Count]
    """Where each begins, in characters of the whole text."""
