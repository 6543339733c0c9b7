"""The blob of an event log."""

from __future__ import annotations

import zlib

import pytest

from archive.codec import ZLIB, pack, unpack
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
    with pytest.raises(ArchiveError, match="codec 2"):
        unpack(2, pack(ENTRIES)[1])


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"garbage",
        zlib.compress(b"[1]"),
        zlib.compress(b'[["0-1","\xff"]]'),
        zlib.compress(b"[]")[:-3] + b"xyz",
        zlib.compress(b"[]") + b"more",
    ],
    ids=["empty", "no zlib", "other shape", "no utf-8", "wrong checksum", "bytes behind"],
)
def test_what_can_not_be_read_is_an_archive_error(blob: bytes) -> None:
    with pytest.raises(ArchiveError):
        unpack(ZLIB, blob)


def test_a_blob_cut_anywhere_is_an_archive_error() -> None:
    codec, blob = pack(ENTRIES)
    for length in range(len(blob)):
        with pytest.raises(ArchiveError):
            unpack(codec, blob[:length])


def test_a_blob_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.codec._MAX_BYTES", 100)
    assert unpack(ZLIB, zlib.compress(b" " * 98 + b"[]")) == []
    with pytest.raises(ArchiveError, match="larger"):
        unpack(ZLIB, zlib.compress(b" " * 99 + b"[]"))


def test_what_could_not_be_read_back_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArchiveError, match="surrogates"):
        pack([StoredEntry("0-1", "\ud800")])
    monkeypatch.setattr("archive.codec._MAX_BYTES", 20)
    with pytest.raises(ArchiveError, match="larger"):
        pack(ENTRIES)
