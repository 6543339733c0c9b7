"""Bytes that are not what they should be: what msgspec raises, and what can still be told."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from schemas.errors import InvalidRequest

UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Wrong JSON or shape; text that is no UTF-8; nested too deep."""

_MAX_DEPTH = 128
"""Of a body. Python's own limit is near a thousand, and in a log a body stands some levels deeper."""
_UNSTORED = re.compile(rb'"store"\s*:\s*false')


def looks_unstored(raw: bytes) -> bool:
    """JSON that may not parse has `"store": false` in it: rather forget too much than keep what must not be kept."""
    return bool(_UNSTORED.search(raw))


def decode_body(raw: bytes) -> Any:
    """The JSON value of a request body. Raises InvalidRequest."""
    try:
        value = _decode(raw)
    except UNDECODABLE as exc:
        raise InvalidRequest(f"The body is not valid JSON: {exc}") from exc
    if raw.count(b"{") + raw.count(b"[") > _MAX_DEPTH and _is_too_deep(value):
        raise InvalidRequest(f"The body is nested deeper than {_MAX_DEPTH} levels.")
    return value


def _number(text: str) -> int | float:
    """A number that was written with a point or an exponent: JSON knows no difference between 16 and 16.0."""
    value = float(text)
    if math.isinf(value):
        raise ValueError("Number out of range")
    return int(value) if value.is_integer() and abs(value) < 1 << 53 else value


_decode = msgspec.json.Decoder(float_hook=_number).decode


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [part for whole in level for part in _parts(whole) if type(part) in (dict, list)]
        if not level:
            return False
    return True


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
