"""The models that take requests."""

from __future__ import annotations

from typing import Literal

from schemas.answers.common import Answer, UnixSeconds


class ModelObject(Answer, frozen=True, kw_only=True):
    """OpenAI's object, and what is known beyond it; null where no worker has been seen yet."""

    id: str
    object: Literal["model"]
    created: UnixSeconds
    owned_by: Literal["openchat"]
    engine: str
    context_length: int | None
    """Tokens."""
    capabilities: list[str] | None
    aliases: list[str]
    parent: str | None
    """Of an adapter: its model."""


class ModelList(Answer, frozen=True, kw_only=True):
    object: Literal["list"]
    data: list[ModelObject]
