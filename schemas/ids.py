"""Ids of responses: time-ordered (UUIDv7, RFC 9562), 32 hex digits behind a prefix.

One response has one id. The Responses API shows it as `resp_<hex>`, chat completions
as `chatcmpl-<hex>`; both name the same log.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import NewType

ResponseId = NewType("ResponseId", str)
"""`resp_` and 32 hex digits: the form used inside (keys, logs, tables)."""

_SHAPE = re.compile(r"(?:resp_|chatcmpl-)([0-9a-f]{32})")


def new_response_id() -> ResponseId:
    """A fresh id; ids sort by the millisecond in which they were made."""
    millis = time.time_ns() // 1_000_000
    value = (millis << 80) | (0x7 << 76) | (secrets.randbits(12) << 64) | (0b10 << 62) | secrets.randbits(62)
    return ResponseId(f"resp_{value:032x}")


def parse_response_id(text: str) -> ResponseId | None:
    """The id behind `resp_…` or `chatcmpl-…`; None where the text is neither."""
    match = _SHAPE.fullmatch(text)
    return ResponseId(f"resp_{match[1]}") if match else None


def id_to_bytes(response_id: ResponseId) -> bytes:
    """The 16 bytes that the archive keys by."""
    return bytes.fromhex(response_id[5:])


def id_from_bytes(raw: bytes) -> ResponseId:
    """The inverse of `id_to_bytes`."""
    return ResponseId(f"resp_{raw.hex()}")


def chat_id(response_id: ResponseId) -> str:
    """The id as chat completions show it."""
    return f"chatcmpl-{response_id[5:]}"


def item_id(response_id: ResponseId, output_index: int) -> str:
    """The id of an output message: the same on every attempt."""
    return f"msg_{response_id[5:]}_{output_index}"
