"""Bytes that are not what they should be: what msgspec raises, and what can still be told."""

from __future__ import annotations

import re

import msgspec

UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Wrong JSON or shape; text that is no UTF-8; nested too deep."""

_UNSTORED = re.compile(rb'"store"\s*:\s*false')


def looks_unstored(raw: bytes) -> bool:
    """JSON that may not parse has `"store": false` in it: rather forget too much than keep what must not be kept."""
    return bool(_UNSTORED.search(raw))
