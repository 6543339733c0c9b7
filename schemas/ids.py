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
ConversationId = NewType("ConversationId", str)
"""`conv_` and 32 hex digits."""

_CONVERSATION = re.compile(r"conv_[0-9a-f]{32}")
_HEX = re.compile(r"[0-9a-f]{32}")
_ITEM = re.compile(r"[a-z]{2,3}_([0-9a-f]{32})_(?:in)?[0-9]{1,9}")
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


def new_conversation_id() -> ConversationId:
    """A fresh id of a conversation."""
    return conversation_from_bytes(new_id())


def new_item_id(prefix: str) -> str:
    """Of an item that was put into a conversation by hand."""
    return f"{prefix}_{new_id().hex()}"


def made_at_ms(any_id: ResponseId | ConversationId) -> int:
    """When an id was made, unix ms by the clock of its maker."""
    return int(any_id[5:17], 16)


def parse_conversation_id(text: str) -> ConversationId | None:
    """None where the text is no `conv_` and 32 hex digits."""
    return ConversationId(text) if _CONVERSATION.fullmatch(text) else None


def parse_response_id(text: str) -> ResponseId | None:
    """The id behind `resp_…`, `chatcmpl-…`, `cmpl-…` or `embd-…`; None where the text is none of them."""
    match = _SHAPE.fullmatch(text)
    return ResponseId(f"resp_{match[1]}") if match else None


def id_to_bytes(any_id: ResponseId | ConversationId) -> bytes:
    """The 16 bytes that the archive keys by."""
    return bytes.fromhex(any_id[5:])


def id_from_bytes(raw: bytes) -> ResponseId:
    """The inverse of `id_to_bytes`."""
    return ResponseId(f"resp_{raw.hex()}")


def conversation_from_bytes(raw: bytes) -> ConversationId:
    """The inverse of `id_to_bytes`."""
    return ConversationId(f"conv_{raw.hex()}")


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


def input_item_id(response_id: ResponseId, input_index: int, prefix: str = "msg") -> str:
    """The id of an item that a response was asked with; `fco`: the output of a function call."""
    return f"{prefix}_{response_id[5:]}_in{input_index}"


def response_of_item(any_item_id: str) -> ResponseId | None:
    """The response that an item was made in, output or input; None where the id is of no such item."""
    match = _ITEM.fullmatch(any_item_id)
    return ResponseId(f"resp_{match[1]}") if match else None


def call_id(response_id: ResponseId, output_index: int) -> str:
    """By which the result of a function call names it: the same in every format and on every attempt."""
    return f"call_{response_id[5:]}_{output_index}"
