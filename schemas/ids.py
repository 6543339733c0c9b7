"""Ids of responses: time-ordered (UUIDv7, RFC 9562), 32 hex digits behind a prefix.

One response has one id. The Responses API shows it as `resp_<hex>`, chat completions
as `chatcmpl-<hex>`, legacy completions as `cmpl-<hex>`, embeddings as `embd-<hex>`; all name the same log.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import NewType

ResponseId = NewType("ResponseId", str)
"""`resp_` and 32 hex digits: the form used inside (keys, logs, tables)."""

_HEX = re.compile(r"[0-9a-f]{32}")
_SHAPE = re.compile(r"(?:resp_|chatcmpl-|cmpl-|embd-)([0-9a-f]{32})")


def new_id() -> bytes:
    """A fresh id of anything that the archive keeps; ids sort by the millisecond in which they were made."""
    millis = time.time_ns() // 1_000_000
    value = (millis << 80) | (0x7 << 76) | (secrets.randbits(12) << 64) | (0b10 << 62) | secrets.randbits(62)
    return value.to_bytes(16)


def new_response_id() -> ResponseId:
    """A fresh id of a response."""
    return id_from_bytes(new_id())


def bare_id(text: str, prefix: str = "") -> bytes | None:
    """The 16 bytes behind `<prefix><32 hex digits>`; None where the text is something else."""
    digits = text.removeprefix(prefix)
    if len(text) != len(prefix) + 32 or not _HEX.fullmatch(digits):
        return None
    return bytes.fromhex(digits)


def parse_response_id(text: str) -> ResponseId | None:
    """The id behind `resp_…`, `chatcmpl-…`, `cmpl-…` or `embd-…`; None where the text is none of them."""
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


def completion_id(response_id: ResponseId) -> str:
    """The id as legacy completions show it."""
    return f"cmpl-{response_id[5:]}"


def embedding_id(response_id: ResponseId) -> str:
    """The id of an embedding."""
    return f"embd-{response_id[5:]}"


def item_id(response_id: ResponseId, output_index: int, prefix: str = "msg") -> str:
    """The id of an output item, the same on every attempt; `msg`, `rs` (reasoning) or `fc` (function call)."""
    return f"{prefix}_{response_id[5:]}_{output_index}"


def call_id(response_id: ResponseId, output_index: int) -> str:
    """By which the result of a function call names it: the same in every format and on every attempt."""
    return f"call_{response_id[5:]}_{output_index}"
