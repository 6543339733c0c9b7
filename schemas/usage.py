"""What was used and what it cost, as reports show it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, get_args

import msgspec

UsageGroup = Literal["tenant", "model", "key", "hour", "day"]
USAGE_GROUPS: tuple[UsageGroup, ...] = get_args(UsageGroup)


class UsageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Whole hours in UTC: from the one that holds `start`, up to `end` and without it."""

    start: datetime
    end: datetime
    group_by: tuple[UsageGroup, ...] = ()
    tenant: str | None = None
    """None: all."""


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """One group. What was not asked for is None."""

    tenant: str | None = None
    model: str | None = None
    key: str | None = None
    """Empty: no key that SQL knows."""
    time: str | None = None
    """Begin of the hour or day, UTC."""
    requests: int
    failed: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost_micros: int
    """Millionths of the currency of the price list; models without prices add nothing."""
