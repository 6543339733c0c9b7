"""Embeddings."""

from __future__ import annotations

from typing import Literal

from schemas.answers.common import Answer, Count


class EmbeddingObject(Answer, frozen=True, kw_only=True):
    object: Literal["embedding"]
    index: Count
    embedding: list[float] | str
    """Numbers, or base64 of float32, little-endian, as it was asked for."""


class EmbeddingUsage(Answer, frozen=True, kw_only=True):
    prompt_tokens: Count
    total_tokens: Count


class EmbeddingList(Answer, frozen=True, kw_only=True):
    """One vector for each input, in their order."""

    object: Literal["list"]
    data: list[EmbeddingObject]
    model: str
    usage: EmbeddingUsage
