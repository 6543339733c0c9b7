"""The queries that are made find their rows by an index, shown by EXPLAIN of the database itself."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from sqlalchemy import Connection, insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from archive.store import _EPOCH, Archive, _row
from archive.tables import api_keys, audit, conversation_items, conversations, responses, tenants, usage_hours
from schemas.ids import id_to_bytes, new_id, new_response_id
from tests.contract.test_archive import archive, in_database, response, url

__all__ = ["archive", "url"]  # fixtures

ROWS = 3000
TENANTS = 30
KEY, CONVERSATION = new_id(), new_id()
KNOWN, PARENT = new_response_id(), new_response_id()
RUN = new_id().hex()[-8:]
QUERIES: Mapping[str, tuple[str, str]] = {
    "a response": ("responses WHERE id = :id", "PRIMARY"),
    "the responses of a tenant, newest first": (
        "responses WHERE tenant = :tenant AND id < :last ORDER BY id DESC LIMIT 20",
        "ix_responses_tenant_id",
    ),
    "the responses of a tenant that ended before a time": (
        "responses WHERE tenant = :tenant AND ended_at < :early ORDER BY ended_at LIMIT 100",
        "ix_responses_tenant_ended_at",
    ),
    "the responses of a conversation": (
        "responses WHERE conversation = :conversation ORDER BY id",
        "ix_responses_conversation_id",
    ),
    "what goes on from a response": ("responses WHERE parent = :parent", "ix_responses_parent"),
    "a log": ("response_logs WHERE response_id = :id", "PRIMARY"),
    "the usage of a tenant in a time": (
        "usage_hours WHERE tenant = :tenant AND hour >= :early AND hour < :late",
        "PRIMARY",
    ),
    "a key by its hash": ("api_keys WHERE hash = :hash", "uq_api_keys_hash"),
    "the keys of a tenant": ("api_keys WHERE tenant = :tenant ORDER BY id", "ix_api_keys_tenant_id"),
    "the conversations of a tenant": (
        "conversations WHERE tenant = :tenant AND id < :last ORDER BY id DESC LIMIT 20",
        "ix_conversations_tenant_id",
    ),
    "the conversations of a tenant that changed in a time": (
        "conversations WHERE tenant = :tenant AND updated_at >= :early AND updated_at < :soon"
        " ORDER BY updated_at DESC LIMIT 20",
        "ix_conversations_tenant_updated_at",
    ),
    "the items of a conversation behind one": (
        "conversation_items WHERE conversation = :conversation AND position > 5 ORDER BY position LIMIT 20",
        "PRIMARY",
    ),
    "an item of a conversation": (
        "conversation_items WHERE conversation = :conversation AND item = 'msg_7'",
        "uq_conversation_items_conversation_item",
    ),
    "the items of a response": (
        "conversation_items WHERE response_id = :id",
        "ix_conversation_items_response_id",
    ),
    "what was done in a tenant": (
        "audit WHERE tenant = :tenant ORDER BY id DESC LIMIT 20",
        "ix_audit_tenant_id",
    ),
}


def name(index: int) -> str:
    return f"explain-{RUN}-{index % TENANTS}"


def fill(connection: Connection) -> None:
    """Enough rows of enough tenants that an index pays; then the statistics."""
    start = response().accepted_at_ms
    kept = [
        response(tenant=name(i), parent=PARENT if i % 100 == 0 else new_response_id(), conversation=new_id())
        for i in range(ROWS)
    ]
    rows = [_row(one, b"written.") | {"ended_at": at(start, i)} for i, one in enumerate(kept)]
    connection.execute(insert(responses), rows)
    ids = sorted(new_id() for _ in range(ROWS))
    ids[ROWS // 2] = CONVERSATION
    connection.execute(
        insert(conversations),
        [
            {"id": own, "tenant": name(i), "created_at": at(start, i), "updated_at": at(start, i), "metadata": "{}"}
            for i, own in enumerate(ids)
        ],
    )
    items = [(own, n) for own in (*ids[::10], CONVERSATION) for n in range(10 if own != CONVERSATION else 40)]
    connection.execute(
        insert(conversation_items),
        [
            {
                "conversation": own,
                "position": n,
                "item": f"msg_{n}",
                "response_id": id_to_bytes(KNOWN) if n == 30 else new_id(),
                "kind": "message",
                "body": b"{}",
                "created_at": at(start, n),
            }
            for own, n in dict.fromkeys(items)
        ],
    )
    connection.execute(
        insert(tenants), [{"name": name(i), "created_at": at(start, 0), "metadata": "{}"} for i in range(TENANTS)]
    )
    connection.execute(
        insert(api_keys),
        [
            {
                "id": new_id(),
                "tenant": name(i),
                "name": "",
                "hash": (new_id() if i else KEY) * 2,
                "prefix": "",
                "scopes": "",
                "created_at": at(start, 0),
            }
            for i in range(ROWS)
        ],
    )
    connection.execute(
        insert(audit),
        [
            {
                "id": new_id(),
                "at": at(start, i),
                "actor": "a",
                "action": "a",
                "tenant": name(i),
                "subject": "",
                "detail": "{}",
            }
            for i in range(ROWS)
        ],
    )
    sums = {column.name: 0 for column in usage_hours.columns if not column.primary_key}
    connection.execute(
        insert(usage_hours),
        [sums | {"tenant": name(i), "hour": at(start, i), "model": "m", "key_id": KEY} for i in range(ROWS)],
    )


def at(start_ms: int, hours: int) -> object:
    return _EPOCH.fromtimestamp(start_ms // 1000 + hours * 3600)


async def plan(connection: AsyncConnection, query: str) -> str:
    start = response().accepted_at_ms
    values = {
        "id": id_to_bytes(KNOWN),
        "last": new_id(),
        "tenant": name(1),
        "early": at(start, 30),
        "soon": at(start, 100),
        "late": at(start, 300),
        "conversation": CONVERSATION,
        "parent": id_to_bytes(PARENT),
        "hash": KEY * 2,
    }
    explain = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
    statement = text(f"{explain} SELECT * FROM {query}")
    used = {word: value for word, value in values.items() if f":{word}" in query}
    rows = (await connection.execute(statement, used)).mappings().all()
    return "\n".join(str(row.get("detail") or row.get("key")) for row in rows)


@pytest.fixture
async def filled(url: str) -> str:
    async def work(connection: AsyncConnection) -> None:
        await connection.run_sync(fill)
        for table in ("responses", "conversations", "conversation_items", "api_keys", "audit", "usage_hours"):
            analyze = "ANALYZE" if connection.dialect.name == "sqlite" else "ANALYZE TABLE"
            await connection.exec_driver_sql(f"{analyze} {table}")

    await in_database(url, work)
    return url


async def test_every_query_uses_its_index(filled: str, archive: Archive) -> None:
    await archive.insert([response(id=KNOWN), *(response() for _ in range(50))])

    async def work(connection: AsyncConnection) -> dict[str, str]:
        return {what: await plan(connection, query) for what, (query, _) in QUERIES.items()}

    plans = await in_database(filled, work)
    wrong = {}
    for what, (_, index) in QUERIES.items():
        found = plans[what]
        is_sqlite = filled.startswith("sqlite")
        if is_sqlite and index.startswith(("PRIMARY", "uq_")):
            is_right = "SEARCH" in found and "sqlite_autoindex_" in found  # SQLite names them by itself
        elif is_sqlite:
            is_right = "SEARCH" in found and f"INDEX {index} " in found
        else:
            is_right = found == index
        if not is_right:
            wrong[what] = found
    assert wrong == {}
