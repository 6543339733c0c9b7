"""What the archive does: insert finished responses, give back their logs."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Insert, Select, Table, bindparam, delete, literal, select, update
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from archive.codec import pack, unpack
from archive.conversations import Conversations, append_turns
from archive.errors import was_cut_off
from archive.response_metadata import add_metadata, written_metadata
from archive.revision import current_revision
from archive.session import session
from archive.tables import HEAD, conversation_items, response_logs, response_metadata, responses
from archive.usage import add_usage
from schemas.archived import ArchivedResponse, StoredEntry
from schemas.conversations import Turn
from schemas.errors import ArchiveError, RowRefused
from schemas.ids import ResponseId, id_from_bytes, id_to_bytes

Row = dict[str, Any]

DELETED = "deleted"
"""Status of a row whose log was deleted: a tombstone."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)
_ESCAPED = (b"\0", b"\n", b"\r", b"\x1a", b'"', b"'", b"\\")
_ROW_BYTES = 1024
"""Bound of a statement with a row beside its log."""

_ROWS = select(responses.c.id, responses.c.write_id).where(responses.c.id.in_(bindparam("ids", expanding=True)))
_ROW_ID = select(responses.c.id).where(responses.c.id == bindparam("id"))
_LOG = select(response_logs.c.codec, response_logs.c.entries).where(response_logs.c.response_id == bindparam("id"))


def _logs_back() -> Select[Any]:
    first = select(responses.c.id, responses.c.parent, literal(1).label("place")).where(
        responses.c.id == bindparam("id")
    )
    back = first.cte("back", recursive=True)
    before = select(responses.c.id, responses.c.parent, back.c.place + 1).join(back, responses.c.id == back.c.parent)
    back = back.union_all(before.where(back.c.place < bindparam("limit")))
    logs = response_logs.c
    return select(back.c.id, logs.codec, logs.entries).join(response_logs, logs.response_id == back.c.id)


_LOGS_BACK = _logs_back()


class Archive:
    """The responses, their logs and their usage in one database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.conversations = Conversations(engine)

    @property
    def engine(self) -> AsyncEngine:
        """Of the same database, for the other stores."""
        return self._engine

    @property
    def writers(self) -> int:
        """How many may well insert at once: one loads while a server writes; SQLite has room for one."""
        return 1 if self._engine.dialect.name == "sqlite" else 2

    async def insert(self, batch: Sequence[ArchivedResponse]) -> None:
        """All of a batch in one transaction, where there is no row yet: a row always wins.

        May be repeated, and several archivers may do the same batch. On return it is durable.
        Raises ArchiveError; then nothing of the batch was written, or (the answer to the
        commit was lost) all of it. RowRefused where it is the fault of a row, or of their sum.
        """
        if not batch:
            return
        rows = _by_id(batch)
        try:
            async with self._connection() as connection:
                written = await _insert_missing(connection, rows)
                await append_turns(connection, _turns_of(batch, written))
                await connection.commit()
        except ArchiveError as exc:
            if was_cut_off(exc):
                await self._check_packet(rows)
            raise

    async def _check_packet(self, batch: dict[bytes, ArchivedResponse]) -> None:
        """MySQL hangs up on a statement over its max_allowed_packet, as if it were away.

        Raises RowRefused where that may be why it did. Wrong only for what goes in one by one.
        """
        async with self._connection() as connection:
            if connection.dialect.name == "sqlite":
                return
            limit = int((await connection.exec_driver_sql("SELECT @@max_allowed_packet")).scalar_one())
        size = sum(_statement_bytes(_log_row(response)["entries"]) for response in batch.values())
        size += sum(_statement_bytes((_metadata(response) or "").encode()) for response in batch.values())
        turns = [response.turn for response in batch.values() if response.turn is not None]
        size += sum(_statement_bytes(item.body) for turn in turns for item in turn.items)
        if size > limit:
            raise RowRefused(f"{len(batch)} logs of {size} bytes are larger than max_allowed_packet, {limit} bytes")

    async def read_log(self, response_id: ResponseId) -> list[StoredEntry] | None:
        """The log of a response, None where there is none. Raises ArchiveError."""
        async with self._connection() as connection:
            row = (await connection.execute(_LOG, {"id": id_to_bytes(response_id)})).one_or_none()
        return unpack(row.codec, row.entries) if row is not None else None

    async def read_back(self, response_id: ResponseId, limit: int) -> dict[ResponseId, list[StoredEntry]]:
        """The log of a response and those that it goes on from, `limit` responses back. Raises ArchiveError."""
        parameters = {"id": id_to_bytes(response_id), "limit": limit}
        async with self._connection() as connection:
            rows = (await connection.execute(_LOGS_BACK, parameters)).all()
        return {id_from_bytes(row.id): unpack(row.codec, row.entries) for row in rows}

    async def exists(self, response_id: ResponseId) -> bool:
        """Whether there is a row, with or without a log. Raises ArchiveError."""
        async with self._connection() as connection:
            return (await connection.execute(_ROW_ID, {"id": id_to_bytes(response_id)})).one_or_none() is not None

    async def erase(self, response_id: ResponseId, tombstone: ArchivedResponse | None) -> None:
        """Delete all content of a response, also in its conversation, and mark its row, or leave `tombstone` where
        there is no row.

        May be repeated. No later insert brings the log back. What it used is counted. Raises ArchiveError.
        """
        key = id_to_bytes(response_id)
        async with self._connection() as connection:
            if tombstone is not None and await _insert_tombstone(connection, tombstone):
                await add_usage(connection, [tombstone])
            emptied = {"status": DELETED, "error_message": None, "metadata": None}
            await connection.execute(update(responses).where(responses.c.id == key).values(emptied))
            for table in (response_logs, response_metadata, conversation_items):
                await connection.execute(delete(table).where(table.c.response_id == key))
            await connection.commit()

    async def check(self) -> None:
        """Raises ArchiveError where it does not answer or its schema is not the newest."""
        async with self._connection() as connection:
            revision = await current_revision(connection)
        if revision != HEAD:
            raise ArchiveError(f"the archive has schema {revision}, this version needs {HEAD}: run `openchat migrate`")

    def _connection(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return session(self._engine)


def insert_ignoring(table: Table, dialect: str) -> Insert:
    """INSERT that leaves existing rows alone: the one statement that the dialects spell differently.

    MySQL's INSERT IGNORE would also swallow rows that are wrong, so an update to the same value instead.
    """
    key = next(iter(table.primary_key.columns))
    if dialect == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing(index_elements=[key])
    return mysql.insert(table).on_duplicate_key_update({key.name: key})


def _statement_bytes(blob: bytes) -> int:
    """What a row takes in a statement, and a little more: the driver escapes some bytes by another."""
    return len(blob) + sum(map(blob.count, _ESCAPED)) + _ROW_BYTES


def _by_id(batch: Sequence[ArchivedResponse]) -> dict[bytes, ArchivedResponse]:
    """Each response once, the first wins; sorted, so that two archivers lock rows in the same order."""
    found: dict[bytes, ArchivedResponse] = {}
    for response in batch:
        found.setdefault(id_to_bytes(response.id), response)
    return dict(sorted(found.items()))


async def _insert_missing(connection: AsyncConnection, batch: dict[bytes, ArchivedResponse]) -> set[bytes]:
    """The ids of the rows that this transaction wrote."""
    known = await _stored(connection, list(batch))
    write_id = secrets.token_bytes(8)
    rows = {key: _row(response, write_id) for key, response in batch.items() if key not in known}
    if not rows:
        return set()
    logs = {key: _log_row(batch[key]) for key in rows}
    dialect = connection.dialect.name
    await connection.execute(insert_ignoring(responses, dialect), list(rows.values()))
    # a row that came in since the first look is not ours: a log beside it could bring back
    # what was deleted. Our insert locked the rows, so this second look is final
    stored = await _stored(connection, list(rows))
    ours = [key for key in rows if stored.get(key) == write_id]
    if ours:
        if kept := [logs[key] for key in ours if batch[key].is_stored]:
            await connection.execute(insert_ignoring(response_logs, dialect), kept)
        await add_metadata(connection, [batch[key] for key in ours])
        await add_usage(connection, [batch[key] for key in ours])
    return set(ours)


def _turns_of(batch: Sequence[ArchivedResponse], written: set[bytes]) -> list[Turn]:
    """In the order of the batch, which is that of the turns; without those of rows that others wrote."""
    turns = {response.id: response.turn for response in batch if id_to_bytes(response.id) in written}
    return [turn for turn in turns.values() if turn is not None]


async def _insert_tombstone(connection: AsyncConnection, tombstone: ArchivedResponse) -> bool:
    """False where there was a row."""
    write_id = secrets.token_bytes(8)
    row = _row(tombstone, write_id)
    await connection.execute(insert_ignoring(responses, connection.dialect.name), [row])
    return await _stored(connection, [row["id"]]) == {row["id"]: write_id}


async def _stored(connection: AsyncConnection, ids: list[bytes]) -> dict[bytes, bytes | None]:
    """Of these, the rows that are there, each with the id of the transaction that wrote it."""
    found = await connection.execute(_ROWS, {"ids": ids})
    return {row.id: row.write_id for row in found}


def _row(response: ArchivedResponse, write_id: bytes) -> Row:
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
        "engine": response.engine,
        "finish_reason": response.finish_reason,
        "reasoning_tokens": response.reasoning_tokens,
        "cost_micros": response.cost_micros,
        "error_message": response.error_message,
        "parent": id_to_bytes(response.parent) if response.parent else None,
        "retry_of": id_to_bytes(response.retry_of) if response.retry_of else None,
        "conversation": response.conversation,
        "key_id": response.key_id,
        "lane": response.lane,
        "is_stored": response.is_stored,
        "ended_at": _EPOCH + timedelta(milliseconds=response.ended_at_ms),
        "write_id": write_id,
        "metadata": _metadata(response),
    }


def _metadata(response: ArchivedResponse) -> str | None:
    return written_metadata(response.metadata) if response.is_stored and response.metadata else None


def _log_row(response: ArchivedResponse) -> Row:
    codec, blob = pack(response.entries)
    return {"response_id": id_to_bytes(response.id), "codec": codec, "entries": blob}
