"""Usage by the hour: exactly what the rows say, whoever writes them and however often."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from archive.connect import open_archive
from archive.store import Archive
from archive.tables import NO_KEY, usage_hours
from schemas.archived import ArchivedResponse
from schemas.ids import new_id
from tests.contract.test_archive import archive, in_database, response, url

__all__ = ["archive", "url"]  # fixtures

HOUR_MS = 3_600_000
START_MS = 1_700_000_000_000 // HOUR_MS * HOUR_MS


def new_tenant() -> str:
    return f"t-{new_id().hex()}"


def ended_at(ms: int, **changes: object) -> ArchivedResponse:
    return response(accepted_at_ms=START_MS + ms - 100, duration_ms=100, **changes)


async def usage(url: str, tenant: str) -> list[dict[str, Any]]:
    async def work(connection: AsyncConnection) -> list[dict[str, Any]]:
        query = select(usage_hours).where(usage_hours.c.tenant == tenant).order_by(*usage_hours.primary_key)
        return [dict(row) for row in (await connection.execute(query)).mappings()]

    return await in_database(url, work)


async def test_it_is_summed_by_hour_of_the_end_model_and_key(url: str, archive: Archive) -> None:
    tenant, key = new_tenant(), new_id()
    one = ended_at(0, tenant=tenant, reasoning_tokens=2, cost_micros=70)
    batch = [
        one,
        ended_at(HOUR_MS - 1, tenant=tenant, status="failed", cached_tokens=1),
        ended_at(HOUR_MS - 1, tenant=tenant, model="other"),
        ended_at(HOUR_MS - 1, tenant=tenant, key_id=key),
        ended_at(HOUR_MS, tenant=tenant, cost_micros=5),
        ended_at(HOUR_MS, tenant=new_tenant()),
    ]
    await archive.insert(batch)
    found = await usage(url, tenant)
    first = datetime.datetime.fromtimestamp(START_MS / 1000, datetime.UTC).replace(tzinfo=None)
    assert [(row["hour"], row["model"], row["key_id"], row["requests"]) for row in found] == [
        (first, "m", NO_KEY, 2),
        (first, "m", key, 1),
        (first, "other", NO_KEY, 1),
        (first + datetime.timedelta(hours=1), "m", NO_KEY, 1),
    ]
    assert {name: value for name, value in found[0].items() if name not in ("tenant", "hour", "model", "key_id")} == {
        "requests": 2,
        "failed": 1,
        "input_tokens": 6,
        "output_tokens": 8,
        "cached_tokens": 1,
        "reasoning_tokens": 2,
        "cost_micros": 70,
    }
    await archive.insert([ended_at(5, tenant=tenant, cost_micros=30)])
    first_row, *_ = await usage(url, tenant)
    assert (first_row["requests"], first_row["cost_micros"]) == (3, 100)


async def test_a_batch_that_is_done_again_is_counted_once(url: str, archive: Archive) -> None:
    tenant = new_tenant()
    batch = [ended_at(0, tenant=tenant) for _ in range(3)]
    await archive.insert(batch)
    await archive.insert(batch)
    await archive.insert([*batch, ended_at(0, tenant=tenant), batch[0]])
    assert [row["requests"] for row in await usage(url, tenant)] == [4]


async def test_archivers_that_write_the_same_at_once_count_it_once(url: str) -> None:
    tenants = [new_tenant(), new_tenant()]
    batch = [ended_at(i * HOUR_MS // 10, tenant=tenants[i % 2]) for i in range(40)]

    async def write(part: list[ArchivedResponse]) -> None:
        async with open_archive(url) as own:
            for begin in range(0, len(part), 10):
                await own.insert(part[begin : begin + 10])

    await asyncio.gather(*(write(part) for part in (batch, batch[::-1], batch[5:] + batch[:5], batch)))
    for tenant in tenants:
        assert sum(row["requests"] for row in await usage(url, tenant)) == 20


async def test_what_was_deleted_before_it_was_archived_is_counted(url: str, archive: Archive) -> None:
    tenant = new_tenant()
    one = ended_at(0, tenant=tenant, cost_micros=5)
    tombstone = msgspec.structs.replace(one, status="deleted", entries=[])
    await archive.erase(one.id, tombstone)
    await archive.erase(one.id, tombstone)
    await archive.insert([one])
    assert [(row["requests"], row["cost_micros"]) for row in await usage(url, tenant)] == [(1, 5)]
    two = ended_at(0, tenant=tenant)
    await archive.insert([two])
    await archive.erase(two.id, msgspec.structs.replace(two, status="deleted", entries=[]))
    assert [row["requests"] for row in await usage(url, tenant)] == [2]
