"""What was used and what it cost."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from schemas.answers.common import Answer, Count
from schemas.usage import UsageGroup


class UsageObject(Answer, frozen=True, kw_only=True):
    """One group; what was not grouped by is not there."""

    object: Literal["usage"]
    requests: Count
    failed: Count
    input_tokens: Count
    cached_tokens: Count
    output_tokens: Count
    reasoning_tokens: Count
    cost: float
    """In the currency of the prices of the models file."""
    tenant: str | UnsetType | None = UNSET
    model: str | UnsetType | None = UNSET
    key: str | UnsetType | None = UNSET
    """Null: without a managed key."""
    hour: str | UnsetType | None = UNSET
    day: str | UnsetType | None = UNSET


class UsageReport(Answer, frozen=True, kw_only=True):
    """Of the whole hours from `start` up to `end`, UTC."""

    object: Literal["list"]
    start: str
    end: str
    group_by: list[UsageGroup]
    data: list[UsageObject]
