"""What is older than its tenant wants it kept goes: rows, logs, conversations, dead letters."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from archive.retention import ArchiveRetention
from archive.store import Archive
from responses import retention as module
from responses.retention import Expired, Retention
from schemas.ids import new_response_id
from schemas.requests import DeadLetter, FinishedEntry
from streams.connect import Broker
from streams.dead import DeadLetters
from streams.keys import DEAD, FINISHED, log_key, requests_key
from tests.contract.test_archive import archive, url
from tests.contract.test_archive_retention import add_conversation, add_tenant, audited, ended, tenant
from tests.integration.rig import Rig

__all__ = ["archive", "tenant", "url"]  # fixtures

DAY_MS = 86_400_000


@pytest.fixture(params=["valkey"])
def kind(request: pytest.FixtureRequest) -> str:
    """One broker: the difference here is the database."""
    return str(request.param)


def retention(rig: Rig, archive: Archive, days: int = 0) -> Retention:
    letters = DeadLetters(rig.broker.commands)
    return Retention(ArchiveRetention(archive.engine), rig.logs, letters, default_days=days, actor="g")


async def put(broker: Broker, letter: DeadLetter, days_ago: float) -> str:
    """A letter as it would have been written then."""
    at_ms = time.time_ns() // 1_000_000 - round(days_ago * DAY_MS)
    fields: dict[Any, Any] = {"letter": msgspec.json.encode(letter)}
    return (await broker.commands.xadd(DEAD, fields, id=f"{at_ms}-*")).decode()


def asked(rig: Rig, tenant: str) -> DeadLetter:
    entry = msgspec.structs.replace(rig.prepare().request_entry(), tenant=tenant)
    body = msgspec.json.encode(entry).decode()
    return DeadLetter(stream=requests_key("m", "interactive"), entry_id="1-1", reason="x", body=body)


async def test_nothing_goes_where_everything_is_kept_for_ever(
    broker: Broker, archive: Archive, url: str, tenant: str
) -> None:
    rig, old = Rig(broker), ended(5000, tenant=tenant)
    await archive.insert([old])
    await put(broker, asked(rig, tenant), 5000)
    await add_tenant(url, tenant, 0)
    assert await retention(rig, archive).sweep() == Expired()
    assert await archive.exists(old.id)


async def test_what_is_older_than_its_tenant_wants_goes_in_batches_and_the_audit_tells(
    broker: Broker, archive: Archive, url: str, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 2)
    rig = Rig(broker)
    await add_tenant(url, tenant, 3)
    old = [ended(days, tenant=tenant) for days in (4, 5, 6, 7, 8)]
    young, others = ended(2, tenant=tenant), ended(9, tenant=f"{tenant}-x")
    await archive.insert([*old, young, others])
    await add_conversation(url, tenant, 4, 2)
    await add_conversation(url, tenant, 2, 2)
    await broker.commands.xadd(log_key(old[0].id), {"event": b"still here"})
    assert await retention(rig, archive).sweep() == Expired(expired_responses=5, expired_conversations=1)
    assert await retention(rig, archive).sweep() == Expired()
    assert [await archive.exists(one.id) for one in (*old, young, others)] == [False] * 5 + [True] * 2
    assert not await broker.commands.exists(log_key(old[0].id))
    assert await audited(url, tenant) == [
        ("g", "responses", 2),
        ("g", "responses", 2),
        ("g", "responses", 1),
        ("g", "conversations", 1),
    ]


async def test_a_sweep_ends_after_so_many_batches_and_the_next_goes_on(
    broker: Broker, archive: Archive, tenant: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 1)
    monkeypatch.setattr(module, "_BATCHES", 2)
    await add_tenant(url, tenant, 1)
    await archive.insert([ended(2, tenant=tenant) for _ in range(3)])
    sweeps = [(await retention(Rig(broker), archive).sweep()).expired_responses for _ in range(3)]
    assert sweeps == [2, 1, 0]


async def test_dead_letters_go_by_the_days_of_their_tenant_and_a_log_that_waits_goes_with_them(
    broker: Broker, archive: Archive, url: str, tenant: str
) -> None:
    rig = Rig(broker)
    await add_tenant(url, tenant, 3)
    waiting = rig.prepare()
    accepted = msgspec.structs.replace(waiting.accepted, tenant=tenant)
    await rig.logs.accept(waiting.id, accepted.at_ms, (accepted, waiting.queued))
    body = msgspec.json.encode(FinishedEntry(id=waiting.id, status="completed")).decode()
    refused = DeadLetter(stream=FINISHED, entry_id="1-1", reason="not_archivable", body=body)
    nobody = DeadLetter(stream="s", entry_id="1-1", reason="x", body="nonsense")
    await put(broker, nobody, 40)
    await put(broker, refused, 20)
    of_others = await put(broker, asked(rig, "somebody"), 10)
    await put(broker, asked(rig, tenant), 4)
    young = await put(broker, asked(rig, tenant), 2)
    assert await retention(rig, archive, days=30).sweep() == Expired(expired_letters=3)
    letters = DeadLetters(broker.commands)
    assert [stored.id async for stored in letters.all()] == [of_others, young]
    assert not await broker.commands.exists(log_key(waiting.id))
    assert await audited(url, tenant) == [("g", "dead letters", 2)]


async def test_a_letter_without_a_tenant_waits_where_there_is_no_default(
    broker: Broker, archive: Archive, url: str, tenant: str
) -> None:
    rig = Rig(broker)
    await add_tenant(url, tenant, 3)
    lost = msgspec.json.encode(FinishedEntry(id=new_response_id(), status="completed")).decode()
    await put(broker, DeadLetter(stream=FINISHED, entry_id="1-1", reason="not_archivable", body=lost), 40)
    assert await retention(rig, archive).sweep() == Expired()
