"""Metadata of responses: in the row as it is now, and, of chat completions, a row for each pair to find them by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from archive.session import session
from archive.tables import response_metadata, responses
from schemas.archived import ArchivedResponse
from schemas.ids import ResponseId, id_to_bytes

Metadata = dict[str, str]

LISTED_FORMAT = "chat"
LISTED_STATUSES = ("completed", "incomplete")
"""Of what is listed: the others are no chat completions, or have none to show."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Metadata).decode


class ResponseMetadata:
    """The metadata of one database's responses. Everything raises ArchiveError."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def find(self, response_id: ResponseId) -> Metadata | None:
        """As it is now; None where there is no row or the row does not say: then it is what the log says."""
        query = select(responses.c.metadata).where(responses.c.id == id_to_bytes(response_id))
        async with session(self._engine) as connection:
            return read_metadata((await connection.execute(query)).scalar())

    async def replace(self, tenant: str, response_id: ResponseId, metadata: Metadata) -> bool:
        """In the place of all that was there. False where this tenant has no such response that is stored."""
        key = id_to_bytes(response_id)
        is_own = (responses.c.id == key) & (responses.c.tenant == tenant)
        is_kept = responses.c.is_stored & (responses.c.status != "deleted")
        row = select(responses.c.format, responses.c.status).where(is_own, is_kept).with_for_update()
        async with session(self._engine) as connection:
            found = (await connection.execute(row)).one_or_none()
            if found is None:
                return False
            values = {"metadata": written_metadata(metadata)}
            await connection.execute(update(responses).where(responses.c.id == key).values(values))
            await connection.execute(delete(response_metadata).where(response_metadata.c.response_id == key))
            if is_listed(found.format, found.status):
                await _insert_pairs(connection, pair_rows(tenant, response_id, metadata))
            await connection.commit()
        return True


async def add_metadata(connection: AsyncConnection, written: Iterable[ArchivedResponse]) -> None:
    """The pairs of responses whose rows this transaction has written."""
    rows = [
        row
        for response in written
        if response.is_stored and is_listed(response.format, response.status)
        for row in pair_rows(response.tenant, response.id, response.metadata or {})
    ]
    await _insert_pairs(connection, sorted(rows, key=lambda row: (row["tenant"], row["pair"], row["response_id"])))


def is_listed(format: str, status: str) -> bool:
    """Its metadata is asked for by value."""
    return format == LISTED_FORMAT and status in LISTED_STATUSES


def pair_rows(tenant: str, response_id: ResponseId, metadata: Mapping[str, str]) -> list[dict[str, str | bytes]]:
    key = id_to_bytes(response_id)
    return [{"tenant": tenant, "pair": pair_of(*pair), "response_id": key} for pair in metadata.items()]


def pair_of(name: str, value: str) -> bytes:
    """Equal for equal names and values."""
    return hashlib.sha256(_encode([name, value])).digest()


def written_metadata(metadata: Metadata) -> str:
    """For the column."""
    return _encode(metadata).decode()


def read_metadata(column: str | None) -> Metadata | None:
    """The inverse of `written_metadata`."""
    return _decode(column) if column is not None else None


async def _insert_pairs(connection: AsyncConnection, rows: list[dict[str, str | bytes]]) -> None:
    if rows:
        await connection.execute(insert(response_metadata), rows)
