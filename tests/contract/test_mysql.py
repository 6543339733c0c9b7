"""What only a database server can do to us: be away, refuse us, freeze; and making one ready."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from archive import session
from archive.connect import open_archive
from archive.create import create
from archive.migrate import migrate
from schemas.errors import ArchiveError, SettingsError
from tests.contract.test_archive import response
from tests.database import MariaDB
from tests.waiting import until


async def test_a_migration_waits_for_a_server_that_is_not_up_yet(own_server: MariaDB) -> None:
    said: list[str] = []
    waiting = asyncio.create_task(migrate(own_server.url("mysql"), said.append, wait_s=60))
    await until(lambda: said, what="the migration to say that it waits")
    await asyncio.to_thread(own_server.start)
    await waiting
    assert "waiting for the archive" in said[0]


async def test_a_server_that_stays_away_is_an_archive_error(own_server: MariaDB) -> None:
    with pytest.raises(ArchiveError, match="does not answer"):
        await migrate(own_server.url("x"), print, wait_s=0)


async def test_what_time_does_not_cure_is_said_at_once_and_without_the_password(mariadb: MariaDB) -> None:
    with pytest.raises(SettingsError, match="does not exist") as unknown:
        await migrate(mariadb.url("no_such_database"), print, wait_s=60)
    with pytest.raises(SettingsError, match="password is wrong") as wrong:
        await migrate(mariadb.url("mysql", "nobody", "tell-no-one"), print, wait_s=60)
    assert "tell-no-one" not in f"{unknown.value} {wrong.value} {wrong.value.__cause__}"


async def test_a_server_that_dies_and_comes_back_is_an_error_and_then_serves(own_server: MariaDB) -> None:
    own_server.start()
    url = await own_server.database()
    await migrate(url, print)
    before, after = response(), response()
    async with open_archive(url) as archive:
        await archive.insert([before])
        own_server.stop()
        with pytest.raises(ArchiveError):
            await archive.insert([after])
        await asyncio.to_thread(own_server.start)
        await archive.insert([after])
        assert await archive.read_log(before.id) == before.entries


async def test_a_frozen_server_is_an_archive_error(own_server: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    own_server.start()
    url = await own_server.database()
    await migrate(url, print)
    async with open_archive(url) as archive:
        await archive.check()
        with monkeypatch.context() as patch:
            patch.setattr(session, "_LIMIT_S", 0.3)
            own_server.send(signal.SIGSTOP)
            try:
                with pytest.raises(ArchiveError):
                    await archive.insert([response()])
            finally:
                own_server.send(signal.SIGCONT)
        await archive.check()


async def test_create_makes_database_schema_and_a_user_that_may_only_serve(mariadb: MariaDB) -> None:
    url = mariadb.url("oc_made", "oc_made", "p%40ss%27%25")
    said: list[str] = []
    for _ in range(2):
        await create(url, mariadb.url("").rstrip("/"), said.append, wait_s=5)
    assert "p@ss" not in "".join(said)
    one = response()
    async with open_archive(url) as archive:
        await archive.check()
        await archive.insert([one])
        assert await archive.read_log(one.id) == one.entries
    grants = [str(row[0]) for row in await mariadb.execute("SHOW GRANTS FOR oc_made@'%%'")]
    assert [g for g in grants if "oc\\_made" in g and "SELECT, INSERT, UPDATE, DELETE" in g]
    assert not [g for g in grants if "ALL PRIVILEGES" in g or "CREATE" in g]


async def test_a_user_that_may_not_migrate_is_told_who_may(mariadb: MariaDB) -> None:
    url = mariadb.url("oc_old", "oc_old", "secret")
    await create(url, mariadb.url(""), print, wait_s=5)
    await mariadb.execute("DROP TABLE oc_old.response_logs", "DELETE FROM oc_old.alembic_version")
    with pytest.raises(ArchiveError, match="--create"):
        await migrate(url, print)


@pytest.mark.parametrize(
    ("url", "admin"),
    [
        ("mysql+asyncmy://u:p@h/d", ""),
        ("mysql+asyncmy://h/d", "mysql+asyncmy://root@h"),
        ("mysql+asyncmy://u:p@h/d`x", "mysql+asyncmy://root@h"),
        ("mysql+asyncmy://root:p@h/d", "mysql+asyncmy://root@h"),
        ("mysql+asyncmy://u:p@h/d", "nonsense"),
    ],
)
async def test_create_says_what_it_needs(url: str, admin: str) -> None:
    with pytest.raises(SettingsError, match="OPENCHAT_DATABASE"):
        await create(url, admin, print, wait_s=0)


async def test_create_makes_the_folder_of_a_file(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'new' / 'a.sqlite3'}"
    await create(url, "", print, wait_s=0)
    async with open_archive(url) as archive:
        await archive.check()
