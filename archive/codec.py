"""The event log of a response as one blob: a JSON array of [entry id, event], compressed."""

from __future__ import annotations

import sys
import zlib

import msgspec

from schemas.archived import StoredEntry
from schemas.errors import ArchiveError, RowRefused

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ZLIB = 1
"""What versions with schema 0001 wrote; its number stands beside the blob."""
ZSTD = 2
"""The codec in use."""
_OPTIONS: dict[int, int] = {zstd.CompressionParameter.compression_level: 3, zstd.CompressionParameter.checksum_flag: 1}
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
    return ZSTD, zstd.compress(raw, options=_OPTIONS)


def unpack(codec: int, blob: bytes) -> list[StoredEntry]:
    """The inverse of `pack`; raises ArchiveError for what can not be read."""
    if codec not in (ZLIB, ZSTD):
        raise ArchiveError(f"the log is stored with codec {codec}, which this version does not know")
    try:
        return _decode(_inflated(zlib.decompressobj() if codec == ZLIB else zstd.ZstdDecompressor(), blob))
    except (zlib.error, zstd.ZstdError, msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ArchiveError(f"the stored log can not be read: {exc}") from exc


def _inflated(reader: zlib._Decompress | zstd.ZstdDecompressor, blob: bytes) -> bytes:
    raw = reader.decompress(blob, _MAX_BYTES + 1)
    if len(raw) > _MAX_BYTES:
        raise ArchiveError(f"the stored log is larger than {_MAX_BYTES} bytes")
    # both are silent about a blob that is cut within its checksum, and about bytes behind its end
    if not reader.eof or reader.unused_data:
        raise ArchiveError("the stored log can not be read: it is cut short or has bytes behind its end")
    return raw
