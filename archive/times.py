"""Times: unix milliseconds outside, UTC without a zone in the tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import overload

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)
_MILLISECOND = timedelta(milliseconds=1)


@overload
def to_time(ms: int) -> datetime: ...
@overload
def to_time(ms: None) -> None: ...
def to_time(ms: int | None) -> datetime | None:
    """For a column of type TIME."""
    return None if ms is None else _EPOCH + timedelta(milliseconds=ms)


@overload
def to_ms(time: datetime) -> int: ...
@overload
def to_ms(time: None) -> None: ...
def to_ms(time: datetime | None) -> int | None:
    """The inverse of `to_time`."""
    return None if time is None else (time - _EPOCH) // _MILLISECOND
