"""The blob of an event log."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import msgspec
import pytest

from archive.codec import ZLIB, ZSTD, pack, unpack, zstd
from schemas.archived import StoredEntry
from schemas.errors import ArchiveError

ENTRIES = [StoredEntry("0-1", '{"type":"accepted"}'), StoredEntry("1-0", '{"é":"🙂\\u0000"}')]


def test_what_is_packed_comes_back_and_is_smaller() -> None:
    entries = [StoredEntry(f"1-{i}", f'{{"type":"text","t":{i},"delta":"é🙂"}}') for i in range(5000)]
    codec, blob = pack(entries)
    assert unpack(codec, blob) == entries
    assert len(blob) < sum(len(e.event) for e in entries) / 5


def test_an_empty_log_comes_back() -> None:
    assert unpack(*pack([])) == []


def test_an_unknown_codec_is_an_archive_error_that_names_it() -> None:
    with pytest.raises(ArchiveError, match="codec 3"):
        unpack(3, pack(ENTRIES)[1])


def _zstd(raw: bytes) -> bytes:
    """As `pack` compresses: with a checksum behind."""
    return zstd.compress(raw, options={zstd.CompressionParameter.checksum_flag: 1})


CODECS = pytest.mark.parametrize(("codec", "compress"), [(ZLIB, zlib.compress), (ZSTD, _zstd)], ids=["zlib", "zstd"])


@CODECS
def test_a_blob_of_either_codec_is_read(codec: int, compress: Callable[[bytes], bytes]) -> None:
    assert unpack(codec, compress(msgspec.json.encode(ENTRIES))) == ENTRIES


def test_new_blobs_are_zstd() -> None:
    assert pack(ENTRIES)[0] == ZSTD


@CODECS
def test_what_can_not_be_read_is_an_archive_error(codec: int, compress: Callable[[bytes], bytes]) -> None:
    other_shape, no_utf8 = compress(b"[1]"), compress(b'[["0-1","\xff"]]')
    wrong_checksum, bytes_behind = compress(b"[]")[:-3] + b"xyz", compress(b"[]") + b"more"
    for blob in (b"", b"garbage", other_shape, no_utf8, wrong_checksum, bytes_behind):
        with pytest.raises(ArchiveError):
            unpack(codec, blob)


def test_a_blob_cut_anywhere_is_an_archive_error() -> None:
    codec, blob = pack(ENTRIES)
    for length in range(len(blob)):
        with pytest.raises(ArchiveError):
            unpack(codec, blob[:length])


@CODECS
def test_a_blob_that_unpacks_to_too_much_is_refused(
    codec: int, compress: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archive.codec._MAX_BYTES", 100)
    assert unpack(codec, compress(b" " * 98 + b"[]")) == []
    with pytest.raises(ArchiveError, match="larger"):
        unpack(codec, compress(b" " * 99 + b"[]"))


def test_what_could_not_be_read_back_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArchiveError, match="surrogates"):
        pack([StoredEntry("0-1", "\ud800")])
    monkeypatch.setattr("archive.codec._MAX_BYTES", 20)
    with pytest.raises(ArchiveError, match="larger"):
        pack(ENTRIES)
