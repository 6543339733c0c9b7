"""What the tables of tenants, keys, audit and usage promise, over SQLite and MariaDB."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import insert

from archive.api_keys import KeyStore
from archive.audit import AuditLog
from archive.connect import open_archive
from archive.migrate import migrate
from archive.store import Archive
from archive.tables import NO_KEY, usage_hours
from archive.tenants import TenantStore
from archive.usage_reports import UsageReports
from responses.keys import key_digest
from schemas.accounts import KeyInfo, Tenant, new_key_id
from schemas.errors import AccountConflict, AccountNotFound
from schemas.usage import UsageGroup, UsageQuery, UsageRow

MYSQL_URL = os.environ.get("OPENCHAT_TEST_MYSQL_URL", "")
AT_MS = 1_700_000_000_123


@pytest.fixture(params=["sqlite", "mariadb", *(["mysql"] if MYSQL_URL else [])])
async def archive(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Archive]:
    match request.param:
        case "mariadb":
            url = await request.getfixturevalue("mariadb").database()
        case "mysql":
            url = MYSQL_URL
        case _:
            url = f"sqlite+aiosqlite:///{tmp_path / 'a.sqlite3'}"
    await migrate(url, print)
    async with open_archive(url) as archive:
        yield archive


@pytest.fixture
def tenants(archive: Archive) -> TenantStore:
    return TenantStore(archive.engine)


@pytest.fixture
def keys(archive: Archive) -> KeyStore:
    return KeyStore(archive.engine)


def tenant(**changes: Any) -> Tenant:
    """One with a name of its own: the database may be shared."""
    return msgspec.structs.replace(Tenant(name=f"t-{new_key_id()}", created_at_ms=AT_MS), **changes)


def key_of(owner: Tenant, **changes: Any) -> KeyInfo:
    whole = KeyInfo(id=new_key_id(), tenant=owner.name, name="k", prefix="oc-1234567", created_at_ms=AT_MS)
    return msgspec.structs.replace(whole, **changes)


def digest_of(key: KeyInfo) -> str:
    return key_digest(key.id)


async def made(tenants: TenantStore, keys: KeyStore, **changes: Any) -> KeyInfo:
    owner = tenant()
    await tenants.create(owner, actor="test")
    key = key_of(owner, **changes)
    await keys.create(key, digest_of(key), actor="test")
    return key


async def test_a_tenant_is_read_back_as_it_was_written(tenants: TenantStore) -> None:
    plain = tenant()
    full = tenant(metadata={"plan": "模型 🙂"}, retention_days=7, limits={"rpm": 5}, disabled_at_ms=AT_MS + 1)
    for one in (plain, full):
        await tenants.create(one, actor="test")
        assert await tenants.find(one.name) == one
        assert one in await tenants.all()
    changed = msgspec.structs.replace(full, metadata={}, retention_days=None, limits={}, disabled_at_ms=None)
    await tenants.put(changed, actor="test")
    assert await tenants.find(full.name) == changed


async def test_a_tenant_has_its_name_alone_and_unknown_ones_are_not_found(tenants: TenantStore) -> None:
    one = tenant()
    await tenants.create(one, actor="test")
    with pytest.raises(AccountConflict):
        await tenants.create(one, actor="test")
    with pytest.raises(AccountNotFound):
        await tenants.find(tenant().name)
    with pytest.raises(AccountNotFound):
        await tenants.put(tenant(), actor="test")


async def test_a_key_is_read_back_as_it_was_written(tenants: TenantStore, keys: KeyStore) -> None:
    key = await made(tenants, keys, name="ключ", scopes=("read", "usage"), limits={"rpm": 1}, expires_at_ms=AT_MS + 9)
    assert await keys.find(key.id) == key
    assert await keys.all(key.tenant) == [key]
    assert key in await keys.all()
    assert await keys.has_any()


async def test_a_key_needs_a_tenant(keys: KeyStore) -> None:
    with pytest.raises(AccountNotFound, match="tenant"):
        await keys.create(key := key_of(tenant()), digest_of(key), actor="test")
    with pytest.raises(AccountNotFound, match=f"key_{key.id}"):
        await keys.find(key.id)


async def test_lists_come_in_pages(tenants: TenantStore, keys: KeyStore) -> None:
    owner = tenant()
    await tenants.create(owner, actor="test")
    made = [key_of(owner) for _ in range(3)]
    for key in made:
        await keys.create(key, digest_of(key), actor="test")
    made.sort(key=lambda key: key.id)
    assert await keys.all(owner.name, count=2) == made[:2]
    assert await keys.all(owner.name, after=made[1].id, count=2) == made[2:]
    names = [one.name for one in await tenants.all()]
    assert names == sorted(names)
    assert [one.name for one in await tenants.all(after=owner.name, count=1)] == [n for n in names if n > owner.name][
        :1
    ]


async def test_the_picture_holds_what_opens_something(tenants: TenantStore, keys: KeyStore) -> None:
    good, revoked, closed = [await made(tenants, keys) for _ in range(3)]
    await keys.revoke(revoked.id, AT_MS, actor="test")
    await tenants.put(msgspec.structs.replace(await tenants.find(closed.tenant), disabled_at_ms=1), actor="test")
    picture = await keys.picture()
    assert picture.is_required
    assert digest_of(revoked) not in picture.keys
    assert digest_of(closed) not in picture.keys
    projected = picture.keys[digest_of(good)]
    assert (projected.id, projected.tenant, projected.scopes) == (good.id, good.tenant, good.scopes)
    assert (await keys.picture()).fingerprint == picture.fingerprint


async def test_a_key_without_limits_has_those_of_its_tenant(tenants: TenantStore, keys: KeyStore) -> None:
    bare, own = await made(tenants, keys), await made(tenants, keys, limits={"rpm": 1})
    for key in (bare, own):
        owner = await tenants.find(key.tenant)
        await tenants.put(msgspec.structs.replace(owner, limits={"rpm": 9}), actor="test")
    picture = await keys.picture()
    assert picture.keys[digest_of(bare)].limits == {"rpm": 9}
    assert picture.keys[digest_of(own)].limits == {"rpm": 1}


async def test_revoking_counts_the_first_time(tenants: TenantStore, keys: KeyStore) -> None:
    key = await made(tenants, keys)
    for at_ms in (AT_MS, AT_MS + 1):
        assert (await keys.revoke(key.id, at_ms, actor="test")).revoked_at_ms == AT_MS
    assert (await keys.find(key.id)).state(AT_MS) == "revoked"


async def test_of_two_that_rotate_a_key_one_does(tenants: TenantStore, keys: KeyStore) -> None:
    key = await made(tenants, keys)
    old = msgspec.structs.replace(key, expires_at_ms=AT_MS + 5)
    new = [msgspec.structs.replace(key, id=new_key_id()) for _ in range(2)]
    outcomes = await asyncio.gather(
        *(keys.rotate(old, one, digest_of(one), actor="test") for one in new), return_exceptions=True
    )
    assert sorted(map(repr, map(type, outcomes))) == sorted(map(repr, [type(None), AccountConflict]))
    winner = new[outcomes.index(None)]
    assert {found.id for found in await keys.all(key.tenant)} == {key.id, winner.id}
    found = await keys.find(key.id)
    assert (found.expires_at_ms, found.rotated_to) == (AT_MS + 5, winner.id)


async def test_the_last_use_only_grows(tenants: TenantStore, keys: KeyStore) -> None:
    one, other = await made(tenants, keys), await made(tenants, keys)
    await keys.note_used({one.id: AT_MS, other.id: AT_MS + 5})
    await keys.note_used({one.id: AT_MS + 1, other.id: AT_MS + 1, new_key_id(): AT_MS})
    assert (await keys.find(one.id)).last_used_at_ms == AT_MS + 1
    assert (await keys.find(other.id)).last_used_at_ms == AT_MS + 5


async def test_every_change_leaves_an_audit_row_and_no_key_in_it(
    archive: Archive, tenants: TenantStore, keys: KeyStore
) -> None:
    key = await made(tenants, keys)
    await tenants.put(msgspec.structs.replace(await tenants.find(key.tenant), retention_days=3), actor="admin:1")
    new = msgspec.structs.replace(key, id=new_key_id())
    await keys.rotate(key, new, digest_of(new), actor="cli")
    await keys.revoke(new.id, AT_MS, actor="cli")
    await keys.revoke(new.id, AT_MS, actor="cli")
    rows = [row for row in await AuditLog(archive.engine).newest(100) if row.tenant == key.tenant]
    assert [(row.action, row.actor) for row in reversed(rows)] == [
        ("tenant.create", "test"),
        ("key.create", "test"),
        ("tenant.update", "admin:1"),
        ("key.rotate", "cli"),
        ("key.revoke", "cli"),
    ]
    assert rows[0].subject == f"key_{new.id}"
    assert rows[2].detail["retention_days"] == 3
    assert digest_of(key) not in str(rows)
    older = await AuditLog(archive.engine).newest(1, before=rows[0].id)
    assert older[0].id < rows[0].id


async def _use(archive: Archive, owner: str, model: str, key: bytes, hour: int, tokens: int) -> None:
    row = {
        "tenant": owner,
        "model": model,
        "key_id": key,
        "hour": datetime(2026, 1, 1 + hour // 24, hour % 24),
        "requests": 1,
        "failed": 0,
        "input_tokens": tokens,
        "output_tokens": 2 * tokens,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
        "cost_micros": 1 << 40,
    }
    async with archive.engine.begin() as connection:
        await connection.execute(insert(usage_hours), row)


async def test_usage_is_summed_by_what_is_asked_for(archive: Archive) -> None:
    owner, key = tenant().name, bytes.fromhex(new_key_id())
    for model, key_id, hour, tokens in (("a", key, 0, 1), ("a", NO_KEY, 1, 10), ("b", key, 25, 100)):
        await _use(archive, owner, model, key_id, hour, tokens)
    await _use(archive, tenant().name, "a", key, 0, 1000)

    async def report(*groups: UsageGroup, end: int = 3) -> list[UsageRow]:
        span = {"start": datetime(2026, 1, 1), "end": datetime(2026, 1, end)}
        return await UsageReports(archive.engine).report(UsageQuery(**span, group_by=groups, tenant=owner))

    (whole,) = await report()
    assert (whole.requests, whole.input_tokens, whole.output_tokens) == (3, 111, 222)
    assert whole.cost_micros == 3 << 40
    assert [(row.model, row.input_tokens) for row in await report("model")] == [("a", 11), ("b", 100)]
    assert [(row.key, row.input_tokens) for row in await report("key")] == [("", 10), (key.hex(), 101)]
    assert [(row.time, row.input_tokens) for row in await report("day")] == [("2026-01-01", 11), ("2026-01-02", 100)]
    hours = [(row.model, row.time) for row in await report("model", "hour")]
    assert hours == [("a", "2026-01-01T00:00:00"), ("a", "2026-01-01T01:00:00"), ("b", "2026-01-02T01:00:00")]
    assert [row.input_tokens for row in await report(end=2)] == [11]
    assert [row.tenant for row in await report("tenant")] == [owner]
