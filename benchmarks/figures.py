"""Medians and percentiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Times:
    """Milliseconds."""

    p50: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Times:
        """Of times in seconds; there must be one."""
        ordered = sorted(seconds)
        return cls(*(ordered[min(len(ordered) - 1, int(len(ordered) * q))] * 1000 for q in (0.5, 0.99)))

    def as_dict(self) -> dict[str, float]:
        return asdict(self)
