"""The chat completions that are stored: found by an index, then read a few at a time, for logs may be large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping, Select, bindparam, select
from sqlalchemy.ext.asyncio import AsyncEngine

from archive.codec import unpack
from archive.response_metadata import LISTED_FORMAT, LISTED_STATUSES, pair_of, read_metadata
from archive.session import session
from archive.tables import response_logs, response_metadata, responses
from schemas.archived import ListedResponse, ResponseQuery
from schemas.conversations import Page
from schemas.ids import ResponseId, id_from_bytes, id_to_bytes

_READ = (
    select(responses.c.id, responses.c.metadata, response_logs.c.codec, response_logs.c.entries)
    .join(response_logs, response_logs.c.response_id == responses.c.id)
    .where(responses.c.id.in_(bindparam("ids", expanding=True)))
)


class ChatCompletions:
    """Those of one database. Everything raises ArchiveError."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def find(self, tenant: str, query: ResponseQuery, page: Page) -> list[ResponseId]:
        """Those of a tenant, by the time when they were accepted; `page.after` is the id of a response."""
        async with session(self._engine) as connection:
            return [id_from_bytes(raw) for raw in (await connection.execute(_found(tenant, query, page))).scalars()]

    async def read(self, response_ids: Sequence[ResponseId]) -> list[ListedResponse]:
        """In the same order; without those that were deleted since."""
        keys = [id_to_bytes(response_id) for response_id in response_ids]
        async with session(self._engine) as connection:
            rows = (await connection.execute(_READ, {"ids": keys})).mappings()
            found = {row["id"]: row for row in rows}
        return [_response_of(found[key]) for key in keys if key in found]


def _found(tenant: str, query: ResponseQuery, page: Page) -> Select[Any]:
    """In the order of one index: of the first pair where metadata is asked for, else of the rows."""
    table = responses.c
    pairs = [response_metadata.alias() for _ in query.metadata]
    place = pairs[0].c.response_id if pairs else table.id
    found = select(table.id)
    for one, pair in zip(pairs, query.metadata.items(), strict=True):
        is_it = (one.c.tenant == tenant) & (one.c.pair == pair_of(*pair))
        found = found.join(one, is_it & (one.c.response_id == table.id))
    found = found.where(table.tenant == tenant, table.format == LISTED_FORMAT)
    found = found.where(table.status.in_(LISTED_STATUSES), table.is_stored)
    if query.model:
        found = found.where(table.model == query.model)
    if page.after:
        after = id_to_bytes(ResponseId(page.after))
        found = found.where(place < after if page.is_descending else place > after)
    return found.order_by(place.desc() if page.is_descending else place).limit(page.limit)


def _response_of(row: RowMapping) -> ListedResponse:
    return ListedResponse(
        id=id_from_bytes(row["id"]),
        metadata=read_metadata(row["metadata"]),
        entries=unpack(row["codec"], row["entries"]),
    )
