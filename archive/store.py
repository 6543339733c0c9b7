"""What the archive does: insert finished responses, give back their logs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Insert, Table, bindparam, select, text
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from archive.codec import pack, unpack
from archive.errors import map_sql_errors
from archive.tables import HEAD, response_logs, responses
from schemas.archived import ArchivedResponse, StoredEntry
from schemas.errors import ArchiveError
from schemas.ids import ResponseId, id_to_bytes

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)


class Archive:
    """The tables of one database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def insert(self, batch: Sequence[ArchivedResponse]) -> None:
        """All of a batch in one transaction, where there is no row yet: a row always wins.

        May be repeated, and several archivers may do the same batch. Raises ArchiveError.
        """
        if not batch:
            return
        rows = [_row(response) for response in batch]
        logs = [_log_row(response) for response in batch]
        with map_sql_errors():
            async with self._engine.begin() as connection:
                known = await _known_ids(connection, [row["id"] for row in rows])
                fresh = [i for i, row in enumerate(rows) if row["id"] not in known]
                if fresh:
                    dialect = self._engine.dialect.name
                    await connection.execute(insert_ignoring(responses, dialect), [rows[i] for i in fresh])
                    await connection.execute(insert_ignoring(response_logs, dialect), [logs[i] for i in fresh])

    async def read_log(self, response_id: ResponseId) -> list[StoredEntry] | None:
        """The log of a response, None where there is no row. Raises ArchiveError."""
        query = select(response_logs.c.codec, response_logs.c.entries).where(
            response_logs.c.response_id == id_to_bytes(response_id)
        )
        with map_sql_errors():
            async with self._engine.connect() as connection:
                row = (await connection.execute(query)).one_or_none()
        return unpack(row.codec, row.entries) if row is not None else None

    async def check(self) -> None:
        """Raises ArchiveError where it does not answer or its schema is not the newest."""
        with map_sql_errors():
            async with self._engine.connect() as connection:
                revision = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
        if revision != HEAD:
            raise ArchiveError(f"the archive has schema {revision}, this version needs {HEAD}: run `openchat migrate`")


def insert_ignoring(table: Table, dialect: str) -> Insert:
    """INSERT that leaves existing rows alone: the one statement that the dialects spell differently.

    MySQL's INSERT IGNORE would also swallow rows that are wrong, so an update to the same value instead.
    """
    key = next(iter(table.primary_key.columns))
    if dialect == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing(index_elements=[key])
    return mysql.insert(table).on_duplicate_key_update({key.name: key})


async def _known_ids(connection: AsyncConnection, ids: list[bytes]) -> set[bytes]:
    query = select(responses.c.id).where(responses.c.id.in_(bindparam("ids", expanding=True)))
    return {bytes(row.id) for row in await connection.execute(query, {"ids": ids})}


def _row(response: ArchivedResponse) -> dict[str, Any]:
    return {
        "id": id_to_bytes(response.id),
        "tenant": response.tenant,
        "format": response.format,
        "model": response.model,
        "status": response.status,
        "accepted_at": _EPOCH + timedelta(milliseconds=response.accepted_at_ms),
        "first_text_ms": response.first_text_ms,
        "duration_ms": response.duration_ms,
        "attempts": response.attempts,
        "input_tokens": response.input_tokens,
        "output_tokens": response.output_tokens,
        "cached_tokens": response.cached_tokens,
        "error_code": response.error_code,
    }


def _log_row(response: ArchivedResponse) -> dict[str, Any]:
    codec, blob = pack(response.entries)
    return {"response_id": id_to_bytes(response.id), "codec": codec, "entries": blob}
