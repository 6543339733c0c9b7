"""What the archive promises of conversations, over SQLite, MariaDB, and any MySQL by OPENCHAT_TEST_MYSQL_URL."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import msgspec
import pytest

from archive.connect import open_archive
from archive.store import Archive
from schemas.conversations import Conversation, ConversationQuery, Page, StoredItem, Turn
from schemas.errors import ConversationNotFound, RowRefused
from schemas.ids import ConversationId, ResponseId, id_to_bytes, new_conversation_id, new_response_id
from tests.contract.test_archive import archive, response, url  # noqa: F401

EVERYTHING = ConversationQuery()


@pytest.fixture
def tenant() -> str:
    """One of this test alone: a database by URL is shared."""
    return f"t-{secrets.token_hex(8)}"


def conversation(tenant: str, at_ms: int = 1_700_000_000_123, **metadata: str) -> Conversation:
    return Conversation(
        id=new_conversation_id(), tenant=tenant, created_at_ms=at_ms, updated_at_ms=at_ms, metadata=metadata
    )


def item(text: str, response_id: ResponseId | None = None) -> StoredItem:
    name = f"msg_{secrets.token_hex(16)}"
    body = msgspec.json.encode({"id": name, "type": "message", "text": text})
    return StoredItem(id=name, kind="message", body=body, response_id=response_id)


def turn_row(tenant: str, conversation: ConversationId, texts: list[str]) -> Any:
    response_id = new_response_id()
    turn = Turn(conversation=conversation, items=[item(text, response_id) for text in texts])
    return response(id=response_id, tenant=tenant, conversation=id_to_bytes(conversation), turn=turn)


def texts(items: list[StoredItem]) -> list[str]:
    return [msgspec.json.decode(one.body)["text"] for one in items]


async def all_items(archive: Archive, conversation: ConversationId) -> list[StoredItem]:  # noqa: F811
    return await archive.conversations.items(conversation, limit=1000)


async def test_a_conversation_is_read_back_as_it_was_made(archive: Archive, tenant: str) -> None:  # noqa: F811
    one = conversation(tenant, title="Über 模型 🙂", x="y")
    await archive.conversations.create(one, [item("a"), item("b")])
    assert await archive.conversations.find(tenant, one.id) == one
    found = await all_items(archive, one.id)
    assert texts(found) == ["a", "b"]
    assert [i.position for i in found] == [0, 1]
    assert await archive.conversations.item(one.id, found[1].id) == found[1]


async def test_text_of_every_kind_is_kept_and_found(archive: Archive, tenant: str) -> None:  # noqa: F811
    text = '\x00 \u2028 \\ " % _ 🙂 \U0010ffff'
    one = conversation(tenant, title=text, **{text: text})
    await archive.conversations.create(one, [item(text)])
    assert await archive.conversations.find(tenant, one.id) == one
    assert texts(await all_items(archive, one.id)) == [text]
    assert await archive.conversations.item(one.id, text) is None
    for part in (text, "\x00", "🙂", "nowhere\x00"):
        await archive.conversations.find_all(tenant, ConversationQuery(title=part), Page(limit=10, after=""))


async def test_another_tenant_sees_and_changes_nothing(archive: Archive, tenant: str) -> None:  # noqa: F811
    one = conversation(tenant, title="mine")
    await archive.conversations.create(one, [item("a")])
    other = f"{tenant}-other"
    assert await archive.conversations.find(other, one.id) is None
    assert await archive.conversations.find_all(other, EVERYTHING, Page(limit=10)) == []
    assert not await archive.conversations.update_metadata(other, one.id, {})
    assert not await archive.conversations.delete(other, one.id)
    with pytest.raises(ConversationNotFound):
        await archive.conversations.add_items(other, one.id, [item("b")])
    assert await archive.conversations.find(tenant, one.id) == one
    assert texts(await all_items(archive, one.id)) == ["a"]


async def test_metadata_takes_the_place_of_the_old_also_where_it_is_the_same(
    archive: Archive,  # noqa: F811
    tenant: str,
) -> None:
    one = conversation(tenant, a="1")
    await archive.conversations.create(one, [])
    for metadata in ({"b": "2"}, {"b": "2"}):
        assert await archive.conversations.update_metadata(tenant, one.id, metadata)
    found = await archive.conversations.find(tenant, one.id)
    assert found is not None
    assert found.metadata == {"b": "2"}
    assert found.updated_at_ms > one.updated_at_ms


async def test_a_list_is_paged_in_both_directions_and_searched_by_time_and_title(
    archive: Archive,  # noqa: F811
    tenant: str,
) -> None:
    ids_in_order = sorted(new_conversation_id() for _ in range(6))
    made = [
        msgspec.structs.replace(conversation(tenant, 1_700_000_000_000 + i * 1000, title=f"Plan {i} 100%"), id=one)
        for i, one in enumerate(ids_in_order[:5])
    ]
    newest = msgspec.structs.replace(conversation(tenant, 1_800_000_000_000), id=ids_in_order[5])
    for one in (*made, newest):
        await archive.conversations.create(one, [])

    async def ids(query: ConversationQuery = EVERYTHING, **page: Any) -> list[str]:
        found = await archive.conversations.find_all(tenant, query, Page(**{"limit": 10, **page}))
        return [one.id for one in found]

    every = [one.id for one in made]
    assert await ids() == [newest.id, *every[::-1]]
    assert await ids(limit=2, after=every[3]) == [every[2], every[1]]
    assert await ids(limit=2, after=every[1], is_descending=False) == [every[2], every[3]]
    bounds = ConversationQuery(created_from_ms=1_700_000_001_000, created_before_ms=1_700_000_003_000)
    assert await ids(bounds) == [every[2], every[1]]
    assert await ids(ConversationQuery(title="pLaN 3")) == [every[3]]
    assert await ids(ConversationQuery(title="100%")) == every[::-1]
    assert await ids(ConversationQuery(title="1%0")) == []
    assert await ids(ConversationQuery(title="_")) == []


async def test_items_are_paged_in_both_directions(archive: Archive, tenant: str) -> None:  # noqa: F811
    one = conversation(tenant)
    await archive.conversations.create(one, [item(str(i)) for i in range(5)])
    read = archive.conversations.items
    assert texts(await read(one.id, limit=2, after=1)) == ["2", "3"]
    assert texts(await read(one.id, limit=2, after=3, is_descending=True)) == ["2", "1"]
    assert texts(await read(one.id, limit=2, is_descending=True)) == ["4", "3"]


async def test_a_deleted_conversation_takes_its_items_along_and_takes_no_turn(
    archive: Archive,  # noqa: F811
    tenant: str,
) -> None:
    one, other = conversation(tenant), conversation(tenant)
    for made in (one, other):
        await archive.conversations.create(made, [item("a")])
    assert await archive.conversations.delete(tenant, one.id)
    assert not await archive.conversations.delete(tenant, one.id)
    late = turn_row(tenant, one.id, ["b"])
    await archive.insert([late])
    assert await archive.exists(late.id)
    assert await all_items(archive, one.id) == []
    assert texts(await all_items(archive, other.id)) == ["a"]


async def test_a_deleted_item_is_gone_and_the_others_keep_their_places(
    archive: Archive,  # noqa: F811
    tenant: str,
) -> None:
    one = conversation(tenant)
    await archive.conversations.create(one, [item(str(i)) for i in range(3)])
    middle = (await all_items(archive, one.id))[1]
    assert await archive.conversations.delete_item(one.id, middle.id)
    assert not await archive.conversations.delete_item(one.id, middle.id)
    await archive.conversations.add_items(tenant, one.id, [item("3")])
    found = await all_items(archive, one.id)
    assert texts(found) == ["0", "2", "3"]
    assert [i.position for i in found] == [0, 2, 3]


async def test_a_turn_goes_in_with_its_row_once_and_in_the_order_of_the_batch(
    archive: Archive,  # noqa: F811
    tenant: str,
) -> None:
    one, other = conversation(tenant), conversation(tenant)
    for made in (one, other):
        await archive.conversations.create(made, [])
    first, second, third = (turn_row(tenant, one.id, [f"{i} in", f"{i} out"]) for i in range(3))
    elsewhere = turn_row(tenant, other.id, ["x"])
    await archive.insert([second, elsewhere, first])  # the ids say otherwise: the batch counts
    await archive.insert([first, third])
    await archive.insert([third, second])
    found = await all_items(archive, one.id)
    assert texts(found) == ["1 in", "1 out", "0 in", "0 out", "2 in", "2 out"]
    assert [i.position for i in found] == list(range(6))
    assert found[0].response_id == second.id
    assert texts(await all_items(archive, other.id)) == ["x"]


async def test_deleting_a_response_takes_its_turn_out_and_no_archiver_brings_it_back(
    archive: Archive,  # noqa: F811
    tenant: str,
) -> None:
    one = conversation(tenant)
    await archive.conversations.create(one, [item("by hand")])
    kept, gone, never = (turn_row(tenant, one.id, [text]) for text in ("kept", "gone", "never"))
    await archive.insert([kept, gone])
    await archive.erase(gone.id, None)
    await archive.erase(never.id, msgspec.structs.replace(never, status="deleted", entries=[], turn=None))
    await archive.insert([never, gone])
    assert texts(await all_items(archive, one.id)) == ["by hand", "kept"]


async def test_a_turn_that_is_refused_takes_its_row_back(archive: Archive, tenant: str) -> None:  # noqa: F811
    one = conversation(tenant)
    await archive.conversations.create(one, [])
    good, bad = turn_row(tenant, one.id, ["good"]), turn_row(tenant, one.id, ["bad"])
    broken = Turn(conversation=one.id, items=[msgspec.structs.replace(bad.turn.items[0], kind=None)])
    with pytest.raises(RowRefused):
        await archive.insert([good, msgspec.structs.replace(bad, turn=broken)])
    assert not await archive.exists(good.id)
    await archive.insert([good])
    assert texts(await all_items(archive, one.id)) == ["good"]


async def test_many_that_write_into_one_conversation_at_once_leave_no_hole_and_lose_nothing(
    url: str,  # noqa: F811
    archive: Archive,  # noqa: F811
    tenant: str,
) -> None:
    talks = [conversation(tenant) for _ in range(2)]
    for one in talks:
        await archive.conversations.create(one, [])
    rows = [turn_row(tenant, talks[i % 2].id, [f"{i} in", f"{i} out"]) for i in range(20)]

    async def write(part: list[Any]) -> None:
        async with open_archive(url) as own:
            await own.insert(part)

    parts = [rows[i : i + 8] for i in (0, 4, 8, 12)]
    by_hand = [archive.conversations.add_items(tenant, talks[0].id, [item(f"hand {i}")]) for i in range(5)]
    await asyncio.gather(*map(write, parts), write(rows[::-1][:8]), *by_hand)
    for one, count in zip(talks, (25, 20), strict=True):
        found = await all_items(archive, one.id)
        assert [i.position for i in found] == list(range(count))
        assert len({i.id for i in found}) == count
        places = [text for text in texts(found) if not text.startswith("hand")]
        assert all(out == into.replace("in", "out") for into, out in zip(places[::2], places[1::2], strict=True))


async def test_logs_are_read_back_along_the_chain_of_responses(archive: Archive) -> None:  # noqa: F811
    chain = [response()]
    for _ in range(5):
        chain.append(response(parent=chain[-1].id))
    await archive.insert([*chain, response(parent=chain[2].id)])
    found = await archive.read_back(chain[4].id, 3)
    assert found == {one.id: one.entries for one in chain[2:5]}
    await archive.erase(chain[3].id, None)
    assert set(await archive.read_back(chain[4].id, 3)) == {chain[4].id, chain[2].id}
    assert await archive.read_back(new_response_id(), 3) == {}
