"""Stored chat completions in SQL: found by model and metadata, page by page, and tagged anew."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from archive.chat_completions import ChatCompletions, _found
from archive.response_metadata import ResponseMetadata
from archive.retention import ArchiveRetention
from archive.store import Archive
from archive.tables import response_metadata
from schemas.archived import ResponseQuery
from schemas.conversations import Page
from schemas.ids import ResponseId, id_to_bytes, new_id, new_response_id
from tests.contract.test_archive import archive, in_database, response, row_of, url

__all__ = ["archive", "url"]  # fixtures

ALL = ResponseQuery()
UP = Page(limit=100, is_descending=False)


@pytest.fixture
def tenant() -> str:
    return f"t-{new_id().hex()}"


@pytest.fixture
def listed(archive: Archive) -> ChatCompletions:
    return ChatCompletions(archive.engine)


@pytest.fixture
def tags(archive: Archive) -> ResponseMetadata:
    return ResponseMetadata(archive.engine)


async def pairs_of(url: str, response_id: ResponseId) -> int:
    query = select(response_metadata).where(response_metadata.c.response_id == id_to_bytes(response_id))

    async def work(connection: AsyncConnection) -> int:
        return len((await connection.execute(query)).all())

    return await in_database(url, work)


async def test_only_what_is_stored_and_can_be_shown_is_listed(
    archive: Archive, listed: ChatCompletions, tenant: str
) -> None:
    shown = [response(tenant=tenant), response(tenant=tenant, status="incomplete")]
    deleted = response(tenant=tenant)
    hidden = [
        response(tenant=tenant, format="responses"),
        response(tenant=tenant, status="failed"),
        response(tenant=tenant, status="cancelled"),
        response(tenant=tenant, is_stored=False, entries=[]),
        response(tenant=f"{tenant}-other"),
        deleted,
    ]
    await archive.insert([*shown, *hidden])
    await archive.erase(deleted.id, None)
    assert await listed.find(tenant, ALL, UP) == sorted(one.id for one in shown)


async def test_pages_follow_each_other_in_both_directions(
    archive: Archive, listed: ChatCompletions, tenant: str
) -> None:
    ids = sorted(new_response_id() for _ in range(7))
    await archive.insert([response(id=one, tenant=tenant) for one in ids])
    for is_descending in (False, True):
        found: list[ResponseId] = []
        while page := await listed.find(
            tenant, ALL, Page(limit=3, after=found[-1] if found else "", is_descending=is_descending)
        ):
            assert len(page) <= 3
            found += page
        assert found == (ids[::-1] if is_descending else ids)


async def test_they_are_found_by_model_and_by_every_pair_to_the_byte(
    archive: Archive, listed: ChatCompletions, tenant: str
) -> None:
    tagged: dict[str, dict[str, Any]] = {
        "plain": {},
        "other model": {"model": "模型 🙂"},
        "a=x": {"metadata": {"a": "x"}},
        "a=x, b=y": {"metadata": {"a": "x", "b": "y", "": "", "n" * 64: "🙂" * 512}},
        "nearly": {"metadata": {"A": "x", "a": "X", "a ": "x", "b": "y ", "ax": ""}},
        "other model, a=x": {"model": "模型 🙂", "metadata": {"a": "x"}},
    }
    ids = sorted(new_response_id() for _ in tagged)
    made = {
        name: response(id=one, tenant=tenant, **more) for one, (name, more) in zip(ids, tagged.items(), strict=True)
    }
    await archive.insert(list(made.values()))

    async def names(model: str = "", **metadata: str) -> set[str]:
        found = await listed.find(tenant, ResponseQuery(model=model, metadata=metadata), UP)
        return {name for name, one in made.items() if one.id in found}

    assert await names() == set(made)
    assert await names("m") == {"plain", "a=x", "a=x, b=y", "nearly"}
    assert await names("M") == set()
    assert await names(a="x") == {"a=x", "a=x, b=y", "other model, a=x"}
    assert await names("模型 🙂", a="x") == {"other model, a=x"}
    assert await names(a="x", b="y") == {"a=x, b=y"}
    assert await names(**{"": "", "n" * 64: "🙂" * 512}) == {"a=x, b=y"}
    assert await names(**{"a ": "x"}) == {"nearly"}
    assert await names(b="x") == set()
    second = Page(limit=1, after=made["a=x"].id, is_descending=False)
    assert await listed.find(tenant, ResponseQuery(metadata={"a": "x"}), second) == [made["a=x, b=y"].id]


async def test_they_are_read_in_the_order_asked_for_without_what_is_gone(
    archive: Archive, listed: ChatCompletions, tenant: str
) -> None:
    one, other = response(tenant=tenant, metadata={"a": "x"}), response(tenant=tenant)
    await archive.insert([one, other])
    found = await listed.read([other.id, new_response_id(), one.id])
    assert [(read.id, read.metadata, read.entries) for read in found] == [
        (other.id, None, other.entries),
        (one.id, {"a": "x"}, one.entries),
    ]


async def test_new_metadata_takes_the_place_of_the_old(
    url: str, archive: Archive, listed: ChatCompletions, tags: ResponseMetadata, tenant: str
) -> None:
    one = response(tenant=tenant, metadata={"a": "x", "b": "y"})
    await archive.insert([one])
    assert await tags.find(one.id) == {"a": "x", "b": "y"}
    for metadata in ({"a": "new"}, {"a": "new"}, {}, {"c": "z"}):
        assert await tags.replace(tenant, one.id, metadata)
        assert await tags.find(one.id) == metadata
        assert await pairs_of(url, one.id) == len(metadata)
    assert await listed.find(tenant, ResponseQuery(metadata={"a": "x"}), UP) == []
    assert await listed.find(tenant, ResponseQuery(metadata={"c": "z"}), UP) == [one.id]
    await archive.insert([one])  # again, as archivers may
    assert await tags.find(one.id) == {"c": "z"}


async def test_nothing_is_tagged_that_is_anothers_or_not_stored(
    archive: Archive, tags: ResponseMetadata, tenant: str
) -> None:
    own, unstored, deleted = response(tenant=tenant), response(tenant=tenant, is_stored=False), response(tenant=tenant)
    await archive.insert([own, unstored, deleted])
    await archive.erase(deleted.id, None)
    for whose, response_id in (
        ("other", own.id),
        (tenant, unstored.id),
        (tenant, deleted.id),
        (tenant, new_response_id()),
    ):
        assert not await tags.replace(whose, response_id, {"a": "x"})
        assert await tags.find(response_id) is None


async def test_of_many_who_tag_at_once_one_is_the_last(
    url: str, archive: Archive, tags: ResponseMetadata, tenant: str
) -> None:
    one = response(tenant=tenant, metadata={"n": "first", "m": "first"})
    await archive.insert([one])
    given: list[dict[str, str]] = [{"n": str(i), "same": "x"} for i in range(10)]
    assert all(await asyncio.gather(*(tags.replace(tenant, one.id, metadata) for metadata in given)))
    assert await tags.find(one.id) in given
    assert await pairs_of(url, one.id) == 2


async def test_metadata_goes_with_what_it_belongs_to(
    url: str, archive: Archive, tags: ResponseMetadata, tenant: str
) -> None:
    erased, expired = (response(tenant=tenant, metadata={"a": "x"}) for _ in range(2))
    unstored = response(tenant=tenant, is_stored=False, metadata={"a": "x"})
    await archive.insert([erased, expired, unstored])
    await archive.erase(erased.id, None)
    await ArchiveRetention(archive.engine).delete_responses(tenant, [expired.id], actor="test", before_ms=0)
    for one in (erased, expired, unstored):
        assert await pairs_of(url, one.id) == 0
        assert (await row_of(url, one.id) or {}).get("metadata") is None


QUERIES = [
    (ALL, {"ix_responses_tenant_format_id"}),
    (ResponseQuery(model="m"), {"ix_responses_tenant_format_model_id"}),
    (ResponseQuery(metadata={"n": "1"}), {"PRIMARY"}),
    (ResponseQuery(model="m", metadata={"n": "1", "all": "x"}), {"PRIMARY"}),
]


async def test_each_query_runs_along_an_index(url: str, archive: Archive, tenant: str) -> None:
    """Of rows that are not wanted there are more than of others, and none is sorted."""
    await archive.insert(
        [
            response(
                tenant=tenant if i % 3 else f"{tenant}-{i % 9}",
                format=("chat", "responses")[i % 2],
                model=("m", "n", "o")[i % 7 % 3],
                metadata={"n": str(i % 40), "all": "x"},
            )
            for i in range(3000)
        ]
    )

    async def explain(connection: AsyncConnection) -> list[list[dict[str, Any]]]:
        is_sqlite = connection.dialect.name == "sqlite"
        for table in ("responses", "response_metadata"):
            await connection.exec_driver_sql(f"{'ANALYZE' if is_sqlite else 'ANALYZE TABLE'} {table}")
        return [await plan(connection, _found(tenant, query, page)) for query, _ in QUERIES]

    page = Page(limit=21, after=new_response_id())
    for (_, indexes), rows in zip(QUERIES, await in_database(url, explain), strict=True):
        if url.startswith("sqlite"):
            used = "\n".join(str(row["detail"]) for row in rows)
            named = [index.replace("PRIMARY", "sqlite_autoindex_response_metadata_1") for index in indexes]
            assert all(f"INDEX {index} " in used for index in named), used
            assert "SCAN" not in used, used
            assert "TEMP B-TREE" not in used, used
        else:
            assert {row["key"] for row in rows} == indexes, rows
            assert not any("filesort" in (row["Extra"] or "") for row in rows), rows


async def plan(connection: AsyncConnection, query: Select[Any]) -> list[dict[str, Any]]:
    compiled = query.compile(dialect=connection.dialect, compile_kwargs={"render_postcompile": True})
    values = tuple(compiled.params[name] for name in compiled.positiontup or [])
    words = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
    return [dict(row) for row in (await connection.exec_driver_sql(f"{words} {compiled}", values)).mappings()]
