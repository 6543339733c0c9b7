"""Retention and export, over SQLite, MariaDB, and any MySQL by OPENCHAT_TEST_MYSQL_URL."""

from __future__ import annotations

import secrets
import time
from typing import Any

import msgspec
import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from archive.export import ArchiveExport
from archive.retention import ACTION, ArchiveRetention
from archive.store import Archive
from archive.tables import audit, conversation_items, conversations, tenants
from archive.times import to_time
from schemas.archived import ArchivedResponse
from schemas.ids import ResponseId, id_from_bytes, new_id
from tests.contract.test_archive import archive, in_database, response, url

__all__ = ["archive", "url"]  # fixtures

DAY_MS = 86_400_000
NOW_MS = time.time_ns() // 1_000_000


@pytest.fixture
def tenant() -> str:
    """A name of its own: a database may be shared."""
    return f"t-{secrets.token_hex(6)}"


def ended(days_ago: float, **changes: Any) -> ArchivedResponse:
    return response(accepted_at_ms=round(NOW_MS - days_ago * DAY_MS) - 100, **changes)


async def add_tenant(url: str, name: str, days: int | None) -> None:
    row = {"name": name, "created_at": to_time(NOW_MS), "metadata": "{}", "retention_days": days}
    await in_database(url, lambda c: c.execute(insert(tenants), [row]))


async def add_conversation(url: str, tenant: str, days_ago: float, items: int) -> bytes:
    key, at = new_id(), to_time(round(NOW_MS - days_ago * DAY_MS))

    async def work(connection: AsyncConnection) -> None:
        row = {"id": key, "tenant": tenant, "created_at": at, "updated_at": at, "metadata": "{}"}
        await connection.execute(insert(conversations), [row])
        body = {"conversation": key, "kind": "message", "body": b"{}", "created_at": at}
        rows = [body | {"position": i, "item": f"msg_{i}"} for i in range(items)]
        await connection.execute(insert(conversation_items), rows)

    await in_database(url, work)
    return key


async def audited(url: str, tenant: str) -> list[tuple[str, str, int]]:
    """Actor, subject and count, in order."""

    async def work(connection: AsyncConnection) -> list[tuple[str, str, int]]:
        query = select(audit).where(audit.c.tenant == tenant, audit.c.action == ACTION).order_by(audit.c.id)
        return [
            (row.actor, row.subject, msgspec.json.decode(row.detail)["count"])
            for row in await connection.execute(query)
        ]

    return await in_database(url, work)


async def test_a_tenant_of_its_own_days_beats_the_default_and_zero_is_for_ever(
    url: str, archive: Archive, tenant: str
) -> None:
    retention = ArchiveRetention(archive.engine)
    names = {days: f"{tenant}-{days}" for days in (0, 7, None)}
    for days, name in names.items():
        await add_tenant(url, name, days)
    plain, talking = f"{tenant}-x", f"{tenant}-y"
    await archive.insert([response(tenant=plain), response(tenant=plain), response(tenant=names[7])])
    await add_conversation(url, talking, 0, 1)
    own = {names[0]: 0, names[7]: 7}
    ours = {k: v for k, v in (await retention.days_of_tenants(0)).items() if k.startswith(tenant)}
    assert ours == own
    ours = {k: v for k, v in (await retention.days_of_tenants(30)).items() if k.startswith(tenant)}
    assert ours == own | {plain: 30, talking: 30}


async def test_what_is_older_is_found_oldest_first_and_deleted_with_its_log(
    url: str, archive: Archive, tenant: str
) -> None:
    old, older, young = ended(3, tenant=tenant), ended(5, tenant=tenant), ended(1, tenant=tenant)
    others = ended(9, tenant=f"{tenant}-other")
    await archive.insert([old, older, young, others])
    retention, before_ms = ArchiveRetention(archive.engine), NOW_MS - 2 * DAY_MS
    assert await retention.expired_responses(tenant, before_ms, 1) == [older.id]
    found = await retention.expired_responses(tenant, before_ms, 10)
    assert found == [older.id, old.id]
    assert await retention.delete_responses(tenant, found, actor="me", before_ms=before_ms) == 2
    assert await retention.delete_responses(tenant, found, actor="me", before_ms=before_ms) == 0
    for one in (old, older):
        assert not await archive.exists(one.id)
        assert await archive.read_log(one.id) is None
    for one in (young, others):
        assert await archive.read_log(one.id) == one.entries
    assert await audited(url, tenant) == [("me", "responses", 2)]


async def test_a_conversation_goes_with_its_items_once_it_has_not_changed_for_so_long(
    url: str, archive: Archive, tenant: str
) -> None:
    kept = await add_conversation(url, tenant, 1, 3)
    for _ in range(3):
        await add_conversation(url, tenant, 3, 3)
    retention, before_ms = ArchiveRetention(archive.engine), NOW_MS - 2 * DAY_MS
    deleted = [await retention.delete_conversations(tenant, limit=2, actor="me", before_ms=before_ms) for _ in range(3)]
    assert deleted == [2, 1, 0]
    query = select(conversations.c.id).where(conversations.c.tenant == tenant)
    assert await in_database(url, lambda c: scalars(c, query)) == [kept]
    items = select(conversation_items.c.conversation).join(conversations).where(conversations.c.tenant == tenant)
    assert await in_database(url, lambda c: scalars(c, items)) == [kept] * 3
    assert await audited(url, tenant) == [("me", "conversations", 2), ("me", "conversations", 1)]


async def scalars(connection: AsyncConnection, query: Any) -> list[Any]:
    return list((await connection.execute(query)).scalars())


async def test_looking_for_what_is_older_uses_the_index(url: str, archive: Archive, tenant: str) -> None:
    await archive.insert([ended(days, tenant=f"{tenant}-{i}") for i in range(40) for days in (1, 5)])
    is_sqlite = url.startswith("sqlite")
    explain = "EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN"
    query = (
        f"SELECT id FROM responses WHERE tenant = '{tenant}-1' AND ended_at < '2100-01-01' ORDER BY ended_at LIMIT 5"
    )

    async def plan(connection: AsyncConnection) -> str:
        if not is_sqlite:
            await connection.execute(text("ANALYZE TABLE responses"))
        return str((await connection.execute(text(f"{explain} {query}"))).mappings().all())

    found = await in_database(url, plan)
    assert "ix_responses_tenant_ended_at" in found or "ix_responses_tenant_id" in found, found
    if is_sqlite:
        assert "ix_responses_tenant_ended_at" in found
        assert "SCAN" not in found
        assert "TEMP B-TREE" not in found


def at(made_ms: int, **changes: Any) -> ArchivedResponse:
    """Accepted at a time that its id tells too, as ids do."""
    raw = made_ms.to_bytes(6) + secrets.token_bytes(10)
    return response(id=id_from_bytes(raw), accepted_at_ms=made_ms, **changes)


async def exported(archive: Archive, **choice: Any) -> list[ResponseId]:
    return [one.id async for one in ArchiveExport(archive.engine).responses(**choice)]


async def test_an_export_is_everything_of_a_tenant_in_order_from_one_time_to_another(
    archive: Archive, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archive.export._PAGE", 2)
    mine = [at(1_800_000_000_000 + i * 1000, tenant=tenant) for i in range(7)]
    others = [at(1_800_000_000_000 + i * 1000, tenant=f"{tenant}-x") for i in range(3)]
    await archive.insert([*mine[::-1], *others])
    ids = [one.id for one in mine]
    assert await exported(archive, tenant=tenant) == ids
    assert await exported(archive, tenant=tenant, since_ms=1_800_000_002_000) == ids[2:]
    assert await exported(archive, tenant=tenant, until_ms=1_800_000_002_000) == ids[:2]
    assert await exported(archive, tenant=tenant, since_ms=1_800_000_000_001, until_ms=1_800_000_003_001) == ids[1:4]
    assert await exported(archive, tenant=f"{tenant}-none") == []
    everybody = await exported(archive, tenant=None, since_ms=1_800_000_000_000, until_ms=1_800_000_009_000)
    assert set(everybody) >= {*ids, *(one.id for one in others)}


async def test_an_export_gives_back_what_was_archived_and_no_content_that_was_not(
    archive: Archive, tenant: str
) -> None:
    whole = ended(
        1,
        tenant=tenant,
        engine="local",
        finish_reason="stop",
        reasoning_tokens=1,
        cost_micros=12,
        parent=id_from_bytes(new_id()),
        retry_of=id_from_bytes(new_id()),
        conversation=new_id(),
        key_id=new_id(),
        lane="batch",
    )
    deleted = ended(1, tenant=tenant, error_message="what it said", error_code="x", status="failed")
    unstored = ended(1, tenant=tenant, is_stored=False)
    await archive.insert([whole, deleted, unstored])
    await archive.erase(deleted.id, None)
    found = {one.id: one async for one in ArchiveExport(archive.engine).responses(tenant=tenant)}
    assert found[whole.id] == whole
    assert found[deleted.id] == msgspec.structs.replace(deleted, status="deleted", error_message=None, entries=[])
    assert found[unstored.id] == msgspec.structs.replace(unstored, entries=[])


async def test_deleting_a_response_takes_its_items_out_of_its_conversation(
    url: str, archive: Archive, tenant: str
) -> None:
    one = response(tenant=tenant)
    await archive.insert([one])
    key = await add_conversation(url, tenant, 0, 2)
    row = {
        "conversation": key,
        "position": 2,
        "item": "msg_x",
        "kind": "message",
        "response_id": bytes.fromhex(one.id[5:]),
        "body": b"what it said",
        "created_at": to_time(NOW_MS),
    }
    await in_database(url, lambda c: c.execute(insert(conversation_items), [row]))
    await archive.erase(one.id, None)
    items = select(conversation_items.c.position).where(conversation_items.c.conversation == key)
    assert await in_database(url, lambda c: scalars(c, items.order_by(conversation_items.c.position))) == [0, 1]
