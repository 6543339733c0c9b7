"""Reading archived responses in order, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy import RowMapping, Select, select
from sqlalchemy.ext.asyncio import AsyncEngine

from archive.codec import unpack
from archive.response_metadata import read_metadata
from archive.session import session
from archive.tables import response_logs, responses
from archive.times import to_ms
from schemas.archived import ArchivedResponse
from schemas.ids import id_from_bytes

_PAGE = 50
"""Rows with their logs that are in memory at once."""

_ROWS = select(responses, response_logs.c.codec, response_logs.c.entries).select_from(
    responses.outerjoin(response_logs, response_logs.c.response_id == responses.c.id)
)


class ArchiveExport:
    """The responses of an archive, as they were archived."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def responses(
        self, *, tenant: str | None, since_ms: int = 0, until_ms: int | None = None
    ) -> AsyncIterator[ArchivedResponse]:
        """By the time when they were accepted, from `since_ms` on, before `until_ms`; one without a log has no entries.

        Raises ArchiveError.
        """
        query = _ROWS.order_by(responses.c.id).limit(_PAGE)
        if until_ms is not None:
            query = query.where(responses.c.id < _first_id(until_ms))
        if tenant is not None:
            query = query.where(responses.c.tenant == tenant)
        rows = await self._page(query.where(responses.c.id >= _first_id(since_ms)))
        while rows:
            for row in rows:
                yield _response_of(row)
            rows = await self._page(query.where(responses.c.id > rows[-1]["id"]))

    async def _page(self, query: Select[Any]) -> list[RowMapping]:
        async with session(self._engine) as connection:
            return list((await connection.execute(query)).mappings())


def _first_id(at_ms: int) -> bytes:
    """No id that was made at this time, or later, is smaller."""
    return max(0, at_ms).to_bytes(6) + bytes(10)


def _response_of(row: RowMapping) -> ArchivedResponse:
    return ArchivedResponse(
        id=id_from_bytes(row["id"]),
        tenant=row["tenant"],
        format=row["format"],
        model=row["model"],
        status=row["status"],
        accepted_at_ms=to_ms(row["accepted_at"]),
        first_text_ms=row["first_text_ms"],
        duration_ms=row["duration_ms"],
        attempts=row["attempts"],
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cached_tokens=row["cached_tokens"],
        error_code=row["error_code"],
        engine=row["engine"],
        finish_reason=row["finish_reason"],
        reasoning_tokens=row["reasoning_tokens"],
        cost_micros=row["cost_micros"],
        error_message=row["error_message"],
        parent=id_from_bytes(row["parent"]) if row["parent"] else None,
        retry_of=id_from_bytes(row["retry_of"]) if row["retry_of"] else None,
        conversation=row["conversation"],
        key_id=row["key_id"],
        lane=row["lane"],
        is_stored=row["is_stored"],
        metadata=read_metadata(row["metadata"]),
        entries=unpack(row["codec"], row["entries"]) if row["entries"] is not None else [],
    )
