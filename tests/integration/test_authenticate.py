"""Keys from SQL through the broker to a gateway, with either of them lost or away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from archive.api_keys import KeyStore
from archive.connect import open_archive
from archive.migrate import migrate
from archive.store import Archive
from archive.tenants import TenantStore
from responses.accounts import Accounts
from responses.authenticate import Authenticator
from responses.keys import ApiKeys, key_digest, new_key
from responses.upkeep import AccountUpkeep
from schemas.accounts import SCOPES, Picture, now_ms
from schemas.admin import TenantChanges
from schemas.errors import ArchiveError, AuthenticationError, BrokerError, OpenChatError
from streams.connect import Broker
from streams.embedded import EmbeddedBroker
from streams.keys import KEYS
from streams.projection import KeyProjection, Seen
from tests import database
from tests.waiting import until


@pytest.fixture
def kind() -> str:
    """One broker for most: what a script does is the same in all."""
    return "valkey"


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[Archive]:
    url = f"sqlite+aiosqlite:///{tmp_path / 'a.sqlite3'}"
    await migrate(url, print)
    async with open_archive(url) as archive:
        yield archive


class Side:
    """What one gateway has."""

    def __init__(self, broker: Broker, archive: Archive, setting: str = "") -> None:
        self.projection = KeyProjection(broker.commands)
        self.accounts = Accounts(TenantStore(archive.engine), KeyStore(archive.engine), self.projection)
        self.authenticator = Authenticator(ApiKeys(setting), self.projection, self.accounts.restore)
        self.upkeep = AccountUpkeep(self.accounts, self.projection, self.authenticator)

    async def opens(self, key: str) -> bool:
        try:
            await self.authenticator.principal(f"Bearer {key}")
        except AuthenticationError:
            return False
        return True


@pytest.fixture
def side(broker: Broker, archive: Archive) -> Side:
    return Side(broker, archive)


@pytest.fixture
async def key(side: Side) -> str:
    """Of the tenant alpha."""
    await side.accounts.create_tenant("alpha", actor="test")
    key, _, is_effective = await side.accounts.create_key("alpha", actor="test")
    assert is_effective
    return key


async def test_without_any_key_everybody_is_the_default_tenant_until_there_is_one(side: Side) -> None:
    assert (await side.authenticator.principal(None)).tenant == "default"
    await side.accounts.create_tenant("alpha", actor="test")
    await side.accounts.create_key("alpha", actor="test")
    await side.upkeep.look()
    with pytest.raises(AuthenticationError):
        await side.authenticator.principal(None)


async def test_a_new_key_is_its_tenants_before_the_gateway_knows_that_keys_are_required(
    broker: Broker, archive: Archive, side: Side
) -> None:
    assert (await side.authenticator.principal("Bearer oc-unknown")).tenant == "default"
    other = Side(broker, archive)
    await other.accounts.create_tenant("alpha", actor="test")
    key, _, _ = await other.accounts.create_key("alpha", actor="test")
    assert (await side.authenticator.principal(f"Bearer {key}")).tenant == "alpha"
    with pytest.raises(AuthenticationError):
        await side.authenticator.principal(None)


@pytest.mark.parametrize("kind", ["valkey", "redis", "cluster"])
async def test_a_key_opens_its_tenant_with_its_scopes_at_any_gateway(
    broker: Broker, archive: Archive, side: Side
) -> None:
    await side.accounts.create_tenant("alpha", actor="test")
    key, info, _ = await side.accounts.create_key("alpha", actor="test", scopes=("read",), limits={"rpm": 3})
    other = Side(broker, archive)
    for one in (side, other):
        principal = await one.authenticator.principal(f"bearer  {key}")
        assert (principal.tenant, principal.key_id, principal.scopes) == ("alpha", info.id, ("read",))
        assert principal.limits == {"rpm": 3}
        for header in (None, "", "Bearer", "Bearer ", f"Bearer {key}x", f"Basic {key}", key):
            with pytest.raises(AuthenticationError):
                await one.authenticator.principal(header)
    assert key.encode() not in b"".join((await broker.commands.hgetall(KEYS)).values())


async def test_keys_of_the_settings_work_beside_managed_ones(broker: Broker, archive: Archive, key: str) -> None:
    other, entry = new_key("beta")
    side = Side(broker, archive, entry)
    assert (await side.authenticator.principal(f"Bearer {other}")).scopes == SCOPES
    assert (await side.authenticator.principal(f"Bearer {other}")).tenant == "beta"
    assert (await side.authenticator.principal(f"Bearer {key}")).tenant == "alpha"


async def test_a_revoked_key_opens_nothing_a_second_later(broker: Broker, archive: Archive, key: str) -> None:
    side, other = Side(broker, archive), Side(broker, archive)
    assert await other.opens(key)
    (info,) = await side.accounts.keys.all()
    await side.accounts.revoke_key(info.id, actor="test")
    revoked_at = time.monotonic()

    async def is_closed() -> bool:
        return not await other.opens(key)

    await until(is_closed)
    assert time.monotonic() - revoked_at < 1
    await other.upkeep.look()
    with pytest.raises(AuthenticationError):
        await other.authenticator.principal(None)  # the last key is gone, which opens nothing to everybody


async def test_a_rotated_key_opens_beside_the_new_one_while_its_grace_lasts(side: Side, key: str) -> None:
    (info,) = await side.accounts.keys.all()
    new, _, _ = await side.accounts.rotate_key(info.id, grace_s=60, actor="test")
    assert await side.opens(new)
    assert await side.opens(key)
    (old, info) = await side.accounts.keys.all()
    assert old.expires_at_ms is not None
    newest, _, _ = await side.accounts.rotate_key(info.id, grace_s=0, actor="test")
    fresh = Authenticator(ApiKeys(""), side.projection, side.accounts.restore)
    assert (await fresh.principal(f"Bearer {newest}")).tenant == "alpha"
    with pytest.raises(AuthenticationError):
        await fresh.principal(f"Bearer {new}")


async def test_an_expired_key_is_said_to_be_expired(side: Side) -> None:
    await side.accounts.create_tenant("alpha", actor="test")
    key, info, _ = await side.accounts.create_key("alpha", actor="test", expires_at_ms=now_ms() + 300)
    assert await side.opens(key)
    await until(lambda: info.state(now_ms()) == "expired")
    with pytest.raises(AuthenticationError, match="expired"):
        await side.authenticator.principal(f"Bearer {key}")


async def test_a_disabled_tenant_is_closed_and_can_be_opened_again(broker: Broker, archive: Archive, key: str) -> None:
    side = Side(broker, archive)
    for is_disabled in (True, False):
        await side.accounts.change_tenant("alpha", TenantChanges(disabled=is_disabled), actor="test")
        assert await Side(broker, archive).opens(key) is not is_disabled


async def test_a_lost_projection_is_made_again_by_the_next_request(broker: Broker, archive: Archive, key: str) -> None:
    await broker.commands.unlink(KEYS)
    sides = [Side(broker, archive) for _ in range(5)]
    assert all(await asyncio.gather(*(side.opens(key) for side in sides)))


async def test_a_lost_projection_is_made_again_without_a_request(broker: Broker, side: Side, key: str) -> None:
    upkeep = asyncio.create_task(side.upkeep.run(look_s=0.05))
    try:
        for _ in range(2):
            await broker.commands.unlink(KEYS)
            await until(lambda: broker.commands.exists(KEYS))
    finally:
        upkeep.cancel()
        await asyncio.wait([upkeep])


async def test_a_change_that_its_process_could_not_tell_is_found_in_sql(side: Side, key: str) -> None:
    (info,) = await side.accounts.keys.all()
    await side.accounts.keys.revoke(info.id, now_ms(), actor="test")
    assert await side.opens(key)
    await side.upkeep.compare()
    assert await side.projection.find(key_digest(key)) is None


async def test_a_picture_from_before_a_change_does_not_bring_a_revoked_key_back(side: Side, key: str) -> None:
    seen, old = await side.projection.look(), await side.accounts.keys.picture()
    (info,) = await side.accounts.keys.all()
    await side.accounts.revoke_key(info.id, actor="test")
    assert not await side.projection.put(old, seen)
    assert await side.projection.find(key_digest(key)) is None


async def test_a_late_picture_is_refused_after_a_loss_as_well(broker: Broker, side: Side, key: str) -> None:
    seen, old = await side.projection.look(), await side.accounts.keys.picture()
    await broker.commands.unlink(KEYS)
    await side.accounts.project()
    assert not await side.projection.put(old, seen)
    nothing = Seen(version="", fingerprint="", is_required=False)
    assert not await side.projection.put(Picture(keys={}, is_required=False), nothing)
    assert await side.opens(key)


async def test_a_thousand_keys_go_in_at_once(side: Side, key: str) -> None:
    picture = await side.accounts.keys.picture()
    (projected,) = picture.keys.values()
    many = {key_digest(str(number)): projected for number in range(20_000)}
    assert await side.projection.put(Picture(keys=many, is_required=True), await side.projection.look())
    assert await side.projection.find(key_digest("19999")) == projected


async def test_the_last_use_is_written_in_one_batch(side: Side, key: str) -> None:
    for _ in range(3):
        assert await side.opens(key)
    before = await side.accounts.keys.all()
    await side.upkeep.compare()
    (after,) = await side.accounts.keys.all()
    assert before[0].last_used_at_ms is None
    assert after.last_used_at_ms is not None
    assert side.authenticator.take_used() == {}


async def test_the_last_uses_are_written_when_a_gateway_stops(broker: Broker, side: Side, key: str) -> None:
    await broker.commands.unlink(KEYS)
    upkeep = asyncio.create_task(side.upkeep.run())
    await until(lambda: broker.commands.exists(KEYS))
    assert await side.opens(key)
    upkeep.cancel()
    await asyncio.wait([upkeep])
    (info,) = await side.accounts.keys.all()
    assert info.last_used_at_ms is not None


async def test_a_gateway_that_can_not_tell_is_never_open(
    server: EmbeddedBroker, broker: Broker, archive: Archive, key: str
) -> None:
    assert await Side(broker, archive).opens(key)
    await server.stop()
    for header in (None, f"Bearer {key}"):
        with pytest.raises(BrokerError) as caught:
            await Side(broker, archive).authenticator.principal(header)
        assert caught.value.status == 503


async def test_with_the_database_stopped_keys_still_work(own_server: database.MariaDB, broker: Broker) -> None:
    own_server.start()
    url = await own_server.database()
    await migrate(url, print)
    async with open_archive(url) as archive:
        side = Side(broker, archive)
        await side.accounts.create_tenant("alpha", actor="test")
        key, info, _ = await side.accounts.create_key("alpha", actor="test")
        own_server.stop()
        other = Side(broker, archive)
        assert await other.opens(key)
        assert not await other.opens("wrong")
        with pytest.raises(ArchiveError):
            await other.upkeep.compare()
        with pytest.raises(ArchiveError):
            await side.accounts.revoke_key(info.id, actor="test")
        await other.upkeep.look()
        await broker.commands.unlink(KEYS)  # the one loss that nobody can make good now
        with pytest.raises(OpenChatError) as caught:
            await Side(broker, archive).opens(key)
        assert caught.value.status == 503
        own_server.start()
        upkeep = asyncio.create_task(other.upkeep.run(look_s=0.05))
        await until(lambda: broker.commands.exists(KEYS))
        upkeep.cancel()
        await asyncio.wait([upkeep])
        assert await Side(broker, archive).opens(key)
        await other.upkeep.compare()
        assert (await other.accounts.keys.find(info.id)).last_used_at_ms is not None
