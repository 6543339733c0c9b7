"""Changing the metadata of a response: SQL first, then the broker forgets its log, so that everybody reads SQL."""

from __future__ import annotations

import asyncio

import pytest

from archive.chat_completions import ChatCompletions
from archive.response_metadata import ResponseMetadata
from archive.store import Archive
from responses import stored
from responses.read import ResponseReader
from responses.stored import StoredResponses
from schemas.errors import LogGone, ResponseLocked, ResponseNotFound
from schemas.requests import FinishedEntry
from streams.connect import Broker
from streams.finished import FinishedStream
from tests.integration.rig import Rig
from tests.integration.test_archiver import archive, archiving, nothing_is_left
from tests.waiting import until

__all__ = ["archive"]  # fixture

OLD, NEW = {"state": "new"}, {"state": "read"}


@pytest.fixture(params=["valkey"])
def kind(request: pytest.FixtureRequest) -> str:
    """One broker: nothing here is new to it."""
    return str(request.param)


def stored_responses(rig: Rig, archive: Archive) -> StoredResponses:
    return StoredResponses(rig.logs, archive, ResponseMetadata(archive.engine), ChatCompletions(archive.engine))


async def test_a_change_waits_for_the_archiver_and_everybody_reads_it_from_then_on(
    broker: Broker, archive: Archive
) -> None:
    rig = Rig(broker)
    responses = stored_responses(rig, archive)
    prepared = await rig.ask(3, metadata=OLD)
    async with rig.worker():
        await rig.idle()
    shown = await rig.logs.read(prepared.id)
    changing = asyncio.create_task(responses.change_metadata("default", prepared.id, NEW))
    done, _ = await asyncio.wait([changing], timeout=0.2)
    assert not done
    assert await responses.changed_metadata(prepared.id) is None
    async with archiving(broker, archive):
        await changing
        assert await responses.changed_metadata(prepared.id) == NEW
        with pytest.raises(LogGone):
            await rig.logs.read(prepared.id)
        await until(lambda: nothing_is_left(broker))
        # heard of again, as after a crash between the commit and the acknowledgement
        await FinishedStream(broker.commands).send(FinishedEntry(id=prepared.id, status="completed"))
        await until(lambda: nothing_is_left(broker))
    assert await responses.changed_metadata(prepared.id) == NEW
    assert await ResponseReader(rig.logs, archive).read(prepared.id) == shown, "its log is what it was"
    assert await rig.logs.count_open() == 0
    await responses.change_metadata("default", prepared.id, {})
    assert await responses.changed_metadata(prepared.id) == {}


async def test_what_is_not_archived_in_time_is_locked_and_what_is_not_stored_is_not_found(
    broker: Broker, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(broker)
    responses = stored_responses(rig, archive)
    kept, unstored = await rig.ask(1, metadata=OLD), await rig.ask(1, store=False)
    async with rig.worker():
        await rig.idle()
    with monkeypatch.context() as patch:
        patch.setattr(stored, "_SETTLE_S", 0.0)
        with pytest.raises(ResponseLocked, match="still being stored"):
            await responses.change_metadata("default", kept.id, NEW)
    async with archiving(broker, archive):
        await until(lambda: nothing_is_left(broker))
    for tenant, prepared in (("default", unstored), ("other", kept)):
        with pytest.raises(ResponseNotFound):
            await responses.change_metadata(tenant, prepared.id, NEW)
        assert await rig.logs.exists(prepared.id), "nothing was done"
    await rig.logs.remove(kept.id)
    assert await responses.changed_metadata(kept.id) == OLD
