"""What msgspec raises for bytes that are not what they should be."""

from __future__ import annotations

import msgspec

UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Wrong JSON or shape; text that is no UTF-8; nested too deep."""
