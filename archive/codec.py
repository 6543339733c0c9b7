"""The event log of a response as one blob: a JSON array of [entry id, event], compressed."""

from __future__ import annotations

import zlib

import msgspec

from schemas.archived import StoredEntry
from schemas.errors import ArchiveError

ZLIB = 1
"""The codec in use; its number stands beside the blob, so that another may follow."""
_LEVEL = 3
_MAX_BYTES = 256 << 20

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[StoredEntry]).decode


def pack(entries: list[StoredEntry]) -> tuple[int, bytes]:
    """Codec and blob."""
    return ZLIB, zlib.compress(_encode(entries), _LEVEL)


def unpack(codec: int, blob: bytes) -> list[StoredEntry]:
    """The inverse of `pack`; raises ArchiveError for what can not be read."""
    if codec != ZLIB:
        raise ArchiveError(f"the log is stored with codec {codec}, which this version does not know")
    reader = zlib.decompressobj()
    try:
        raw = reader.decompress(blob, _MAX_BYTES)
        if reader.unconsumed_tail:
            raise ArchiveError(f"the stored log is larger than {_MAX_BYTES} bytes")
        return _decode(raw)
    except (zlib.error, msgspec.DecodeError) as exc:
        raise ArchiveError(f"the stored log can not be read: {exc}") from exc
