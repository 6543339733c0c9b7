"""The blob of an event log."""

from __future__ import annotations

import zlib

import pytest

from archive.codec import pack, unpack
from schemas.archived import StoredEntry
from schemas.errors import ArchiveError


def test_what_is_packed_comes_back_and_is_smaller() -> None:
    entries = [StoredEntry(f"1-{i}", f'{{"type":"text","t":{i},"delta":"é🙂"}}') for i in range(5000)]
    codec, blob = pack(entries)
    assert unpack(codec, blob) == entries
    assert len(blob) < sum(len(e.event) for e in entries) / 5


@pytest.mark.parametrize(
    ("codec", "blob"), [(2, b""), (1, b"garbage"), (1, zlib.compress(b"[1]")), (1, zlib.compress(b"[]")[:-3] + b"xyz")]
)
def test_what_can_not_be_read_is_an_archive_error(codec: int, blob: bytes) -> None:
    with pytest.raises(ArchiveError):
        unpack(codec, blob)


def test_a_blob_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.codec._MAX_BYTES", 100)
    with pytest.raises(ArchiveError, match="larger"):
        unpack(1, zlib.compress(b" " * 1000))
