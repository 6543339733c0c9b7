"""The event log of a response as one blob: a JSON array of [entry id, event], compressed."""

from __future__ import annotations

import zlib

import msgspec

from schemas.archived import StoredEntry
from schemas.errors import ArchiveError, RowRefused

ZLIB = 1
"""The codec in use; its number stands beside the blob, so that another may follow."""
_LEVEL = 3
_MAX_BYTES = 256 << 20
"""Bound of the JSON, both ways: a small blob may unpack to anything."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[StoredEntry]).decode


def pack(entries: list[StoredEntry]) -> tuple[int, bytes]:
    """Codec and blob; raises RowRefused for what could not be read back."""
    try:
        raw = _encode(entries)
    except UnicodeEncodeError as exc:
        raise RowRefused(f"the log can not be stored: {exc}") from exc
    if len(raw) > _MAX_BYTES:
        raise RowRefused(f"the log is larger than {_MAX_BYTES} bytes")
    return ZLIB, zlib.compress(raw, _LEVEL)


def unpack(codec: int, blob: bytes) -> list[StoredEntry]:
    """The inverse of `pack`; raises ArchiveError for what can not be read."""
    if codec != ZLIB:
        raise ArchiveError(f"the log is stored with codec {codec}, which this version does not know")
    try:
        return _decode(_inflated(blob))
    except (zlib.error, msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ArchiveError(f"the stored log can not be read: {exc}") from exc


def _inflated(blob: bytes) -> bytes:
    reader = zlib.decompressobj()
    raw = reader.decompress(blob, _MAX_BYTES + 1)
    if len(raw) > _MAX_BYTES:
        raise ArchiveError(f"the stored log is larger than {_MAX_BYTES} bytes")
    # zlib is silent about a blob that is cut within its checksum, and about bytes behind its end
    if not reader.eof or reader.unused_data:
        raise ArchiveError("the stored log can not be read: it is cut short or has bytes behind its end")
    return raw
