"""Conversations in SQL.

Items are added under the lock of their conversation's row, which the update of `updated_at` takes on both
dialects, so positions have no holes but those that deletions leave.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, RowMapping, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from archive.session import session
from archive.tables import conversation_items, conversations
from archive.times import to_ms, to_time
from schemas.conversations import Conversation, ConversationQuery, Page, StoredItem, Turn
from schemas.errors import ConversationNotFound
from schemas.ids import ConversationId, conversation_from_bytes, id_from_bytes, id_to_bytes

_decode_metadata = msgspec.json.Decoder(dict[str, str]).decode


class Conversations:
    """The conversations of one database. Everything raises ArchiveError."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def create(self, conversation: Conversation, items: Sequence[StoredItem]) -> None:
        """A new conversation with its first items. Raises RowRefused."""
        async with session(self._engine) as connection:
            await connection.execute(insert(conversations), [_row(conversation)])
            await _append(connection, conversation.id, items)
            await connection.commit()

    async def find(self, tenant: str, conversation: ConversationId) -> Conversation | None:
        """None for another tenant's, too."""
        query = select(conversations).where(*_is_own(tenant, conversation))
        async with session(self._engine) as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return _conversation(row) if row is not None else None

    async def find_all(self, tenant: str, query: ConversationQuery, page: Page) -> list[Conversation]:
        """Ordered by the time when they were made."""
        table = conversations.c
        where = [table.tenant == tenant]
        if query.created_from_ms is not None:
            where.append(table.created_at >= to_time(query.created_from_ms))
        if query.created_before_ms is not None:
            where.append(table.created_at < to_time(query.created_before_ms))
        if page.after:
            after = id_to_bytes(ConversationId(page.after))
            where.append(table.id < after if page.is_descending else table.id > after)
        order = table.id.desc() if page.is_descending else table.id
        async with session(self._engine) as connection:
            if query.title:
                where.append(_has_title(query.title, connection.dialect.name))
            found = select(conversations).where(*where).order_by(order).limit(page.limit)
            rows = (await connection.execute(found)).mappings().all()
        return [_conversation(row) for row in rows]

    async def update_metadata(self, tenant: str, conversation: ConversationId, metadata: dict[str, str]) -> bool:
        """False where there is no such conversation."""
        values = {"metadata": _encoded(metadata), "updated_at": to_time(_now_ms())}
        statement = update(conversations).where(*_is_own(tenant, conversation)).values(values)
        async with session(self._engine) as connection:
            found = await connection.execute(statement)
            await connection.commit()
        return found.rowcount > 0

    async def delete(self, tenant: str, conversation: ConversationId) -> bool:
        """With all its items; False where there is no such conversation."""
        async with session(self._engine) as connection:
            found = await connection.execute(delete(conversations).where(*_is_own(tenant, conversation)))
            await connection.commit()
        return found.rowcount > 0

    async def add_items(self, tenant: str, conversation: ConversationId, items: Sequence[StoredItem]) -> None:
        """Behind those that are there. Raises ConversationNotFound, RowRefused."""
        async with session(self._engine) as connection:
            if not await _lock(connection, conversation, tenant):
                raise ConversationNotFound
            await _append(connection, conversation, items)
            await connection.commit()

    async def items(
        self, conversation: ConversationId, *, limit: int, after: int | None = None, is_descending: bool = False
    ) -> list[StoredItem]:
        """The first ones behind the position `after`, in either direction."""
        table = conversation_items.c
        query = select(conversation_items).where(table.conversation == id_to_bytes(conversation))
        if after is not None:
            query = query.where(table.position < after if is_descending else table.position > after)
        query = query.order_by(table.position.desc() if is_descending else table.position).limit(limit)
        async with session(self._engine) as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [_item(row) for row in rows]

    async def item(self, conversation: ConversationId, item_id: str) -> StoredItem | None:
        """By its id."""
        query = select(conversation_items).where(*_is_item(conversation, item_id))
        async with session(self._engine) as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return _item(row) if row is not None else None

    async def delete_item(self, conversation: ConversationId, item_id: str) -> bool:
        """False where there is no such item."""
        async with session(self._engine) as connection:
            found = await connection.execute(delete(conversation_items).where(*_is_item(conversation, item_id)))
            await connection.commit()
        return found.rowcount > 0


async def append_turns(connection: AsyncConnection, turns: Sequence[Turn]) -> None:
    """Those whose responses were just inserted by this transaction; a conversation that is gone takes nothing.

    The conversations are locked in the order of their ids, so that two archivers do not wait for each other.
    """
    for turn in sorted(turns, key=lambda turn: turn.conversation):  # stable: turns of one stay in their order
        if turn.items and await _lock(connection, turn.conversation):
            await _append(connection, turn.conversation, turn.items)


async def _lock(connection: AsyncConnection, conversation: ConversationId, tenant: str | None = None) -> bool:
    """Until the end of the transaction; False where there is no such conversation."""
    where = [conversations.c.id == id_to_bytes(conversation)]
    if tenant is not None:
        where.append(conversations.c.tenant == tenant)
    statement = update(conversations).where(*where).values(updated_at=to_time(_now_ms()))
    return (await connection.execute(statement)).rowcount > 0


async def _append(connection: AsyncConnection, conversation: ConversationId, items: Sequence[StoredItem]) -> None:
    if not items:
        return
    key = id_to_bytes(conversation)
    # for update: a read of the transaction's snapshot would not see what was added before the lock was ours
    last = select(func.max(conversation_items.c.position)).where(conversation_items.c.conversation == key)
    position = await connection.scalar(last.with_for_update())
    first = 0 if position is None else position + 1
    now = to_time(_now_ms())
    rows = [
        {
            "conversation": key,
            "position": first + i,
            "item": item.id,
            "response_id": id_to_bytes(item.response_id) if item.response_id is not None else None,
            "kind": item.kind,
            "body": item.body,
            "created_at": now,
        }
        for i, item in enumerate(items)
    ]
    await connection.execute(insert(conversation_items), rows)


def _is_own(tenant: str, conversation: ConversationId) -> tuple[ColumnElement[bool], ...]:
    return conversations.c.id == id_to_bytes(conversation), conversations.c.tenant == tenant


def _is_item(conversation: ConversationId, item_id: str) -> tuple[ColumnElement[bool], ...]:
    table = conversation_items.c
    return table.conversation == id_to_bytes(conversation), table.item == item_id


def _has_title(part: str, dialect: str) -> ColumnElement[bool]:
    title: Any = func.json_extract(conversations.c.metadata, "$.title")
    if dialect != "sqlite":
        title = func.json_unquote(title)
    return func.lower(title).contains(part.lower(), autoescape=True)


def _row(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": id_to_bytes(conversation.id),
        "tenant": conversation.tenant,
        "created_at": to_time(conversation.created_at_ms),
        "updated_at": to_time(conversation.updated_at_ms),
        "metadata": _encoded(conversation.metadata),
    }


def _conversation(row: RowMapping) -> Conversation:
    return Conversation(
        id=conversation_from_bytes(row["id"]),
        tenant=row["tenant"],
        created_at_ms=to_ms(row["created_at"]),
        updated_at_ms=to_ms(row["updated_at"]),
        metadata=_decode_metadata(row["metadata"]),
    )


def _item(row: RowMapping) -> StoredItem:
    response_id = row["response_id"]
    return StoredItem(
        id=row["item"],
        kind=row["kind"],
        body=row["body"],
        response_id=id_from_bytes(response_id) if response_id is not None else None,
        position=row["position"],
    )


def _encoded(metadata: dict[str, str]) -> str:
    return msgspec.json.encode(metadata).decode()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
