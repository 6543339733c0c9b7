"""`broker/`: the bundled server takes every file, and the pipeline runs with the least privileges."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from archive.api_keys import KeyStore
from archive.connect import open_archive
from archive.migrate import migrate
from archive.tenants import TenantStore
from consumers.archiver import Archiver
from consumers.inference import InferenceWorker
from ingress.tails import Tails
from responses.accounts import Accounts
from responses.conversation_edits import ConversationEditor
from responses.directory import ModelDirectory
from responses.end import Ender, cancellation
from responses.keys import key_digest
from responses.read import ResponseReader
from responses.requeue import Requeuer
from responses.restore import Restorer
from schemas.errors import BrokerError
from schemas.models import Models
from schemas.requests import FinishedEntry
from streams.bus import Bus
from streams.chats import Chats
from streams.connect import Broker
from streams.control import ControlStream
from streams.dead import DeadLetters, StoredLetter
from streams.embedded import CONF
from streams.finished import FinishedStream
from streams.keys import log_key
from streams.leases import Leases, WorkerRegistry
from streams.projection import KeyProjection
from streams.queue import RequestQueue
from streams.viewed import Viewed
from tests.brokers import Node
from tests.integration.rig import SETTINGS, Rig, synthetic, text_of
from tests.ports import HOST
from tests.waiting import until

FOLDER = CONF.parent
USERS = ("gateway", "worker", "archiver", "operator")


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Node]:
    """A server with `users.acl`; the password of each user is its name and `-password`."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name in USERS:
        (secrets / f"openchat-{name}").write_text(f"{name}-password\n")
    command = [FOLDER / "set-passwords.sh", FOLDER / "users.acl", secrets]
    acl = tmp_path / "users.acl"
    acl.write_bytes(subprocess.run(command, check=True, capture_output=True, timeout=10).stdout)
    with acl.open("a") as file:  # and one who may look at what was refused
        file.write("user examiner on nopass ~* +@all\n")
    node = Node(tmp_path, "server", CONF, "--aclfile", str(acl))
    node.client.connection_pool.connection_kwargs.update(username="examiner", password="x")
    try:
        node.start()
        yield node
    finally:
        node.stop()


@pytest.fixture
async def connect(guarded: Node) -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:

        def connect(name: str, password: str = "") -> Broker:
            url = f"redis://openchat-{name}:{password or name + '-password'}@{HOST}:{guarded.port}"
            broker = Broker(url, timeout_s=2.0, connections=8)
            stack.push_async_callback(broker.close)
            return broker

        yield connect


async def test_every_part_does_its_work_as_a_user_of_its_own(connect: Any, guarded: Node, tmp_path: Path) -> None:
    gateway, worker, archiver, operator = map(connect, USERS)
    rig = Rig(gateway)
    url = f"sqlite+aiosqlite:///{tmp_path / 'a.sqlite3'}"
    await migrate(url, print)
    stop = asyncio.Event()
    async with open_archive(url) as archive:
        finished = FinishedStream(gateway.commands)
        ender = Ender(rig.logs, finished, name="g", boot="g", control=ControlStream(gateway.commands))
        restorer = Restorer(rig.logs, archive, finished, lambda _: rig.queue, rig.histories(archive))
        tails = Tails(gateway, rig.logs, ResponseReader(rig.logs, archive), ender, restorer)
        following = asyncio.create_task(tails.run_buses())
        engine = synthetic()
        tasks = [
            asyncio.create_task(InferenceWorker(SETTINGS, rig.model, engine, worker, name="w", pid=1).run(stop)),
            asyncio.create_task(Archiver(SETTINGS, archiver, archive, name="a").run(stop)),
        ]
        editor = ConversationEditor(rig.conversations(archive), archive.conversations, rig.turns)
        talk = (await editor.create("default", [], {})).id
        done, cancelled = await rig.ask(20, conversation=talk), await rig.ask(2000)
        assert await rig.turns.join(talk, done.id, seen=None)
        assert (await rig.ended(done.id)).text == text_of(20)
        viewed = Viewed(gateway.commands, gateway="g")
        await viewed.refresh([cancelled.id])
        assert await viewed.leave(cancelled.id) == 0
        await ender.end(cancelled.id, cancellation())
        await rig.queue.remove(cancelled.id)
        await rig.idle()

        async def is_archived() -> bool:
            return await archive.read_log(cancelled.id) is not None and await archive.read_log(done.id) is not None

        await until(is_archived)
        assert len((await rig.histories(archive).before("default", done.accepted.request)).messages) == 2
        await editor.delete("default", talk)
        chats = Chats(gateway.commands, ttl_s=60)
        await chats.point("default", "chat", done.id)
        assert await chats.newest("default", "chat") == done.id
        registry = WorkerRegistry(gateway.commands, Leases(gateway.commands, 1000))
        assert (await ModelDirectory(Models([rig.model]), registry, grace_s=60).find(rig.model.name)).is_alive
        assert await registry.prune(await registry.all()) == 1  # it says so again at its next renewal
        leases = Leases(operator.commands, 1000)
        await until(WorkerRegistry(operator.commands, leases).living)
        assert await RequestQueue(operator.commands, rig.model.name).depth("interactive") == 0
        assert await FinishedStream(operator.commands).lag("archiver") == 0
        await rig.logs.remove(done.id)
        await Bus(gateway.commands).trim(0)
        assert await DeadLetters(gateway.commands).remove_of(done.id) == 0
        stop.set()
        await asyncio.gather(*tasks)
        following.cancel()
        await asyncio.wait([following])
    assert guarded.client.acl_log() == [], "somebody was refused something"


async def test_a_gateway_may_project_the_keys_and_nobody_else_may(connect: Any, guarded: Node, tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'a.sqlite3'}"
    await migrate(url, print)
    async with open_archive(url) as archive:
        projection = KeyProjection(connect("gateway").commands)
        accounts = Accounts(TenantStore(archive.engine), KeyStore(archive.engine), projection)
        await accounts.create_tenant("alpha", actor="test")
        key, info, is_effective = await accounts.create_key("alpha", actor="test")
        assert is_effective
        assert await projection.find(key_digest(key)) is not None
        assert (await accounts.revoke_key(info.id, actor="test"))[1]
        assert guarded.client.acl_log() == [], "the gateway was refused something"
        picture, seen = await accounts.keys.picture(), await projection.look()
    for name in ("worker", "archiver", "operator"):
        with pytest.raises(BrokerError, match=r"(?i)permission"):
            await KeyProjection(connect(name).commands).put(picture, seen)


async def test_dead_letters_are_written_shown_and_sent_again_without_more_rights(
    connect: Any, guarded: Node, tmp_path: Path
) -> None:
    gateway, worker, archiver, operator = map(connect, USERS)
    rig, seen = Rig(gateway), DeadLetters(operator.commands)
    url = f"sqlite+aiosqlite:///{tmp_path / 'a.sqlite3'}"
    await migrate(url, print)
    damaged, lost = rig.prepare(), rig.prepare(3)
    await rig.logs.accept(damaged.id, damaged.accepted.at_ms, (damaged.accepted, damaged.queued))
    await gateway.commands.xadd(log_key(damaged.id), {"event": b"{"}, id="1-1")
    await FinishedStream(gateway.commands).send(FinishedEntry(id=damaged.id, status="completed"))
    await rig.queue.send("interactive", lost.request_entry())
    stop = asyncio.Event()

    async def has_letters(count: int) -> list[StoredLetter]:
        found = await seen.newest(10)
        return found if len(found) == count else []

    async with open_archive(url) as archive:
        tasks = [
            asyncio.create_task(InferenceWorker(SETTINGS, rig.model, synthetic(), worker, name="w", pid=1).run(stop)),
            asyncio.create_task(Archiver(SETTINGS, archiver, archive, name="a").run(stop)),
        ]
        letters = {stored.letter.reason: stored for stored in await until(lambda: has_letters(2))}
        assert await seen.find(letters["log_gone"].id) == letters["log_gone"]
        models, finished = Models([rig.model]), FinishedStream(gateway.commands)
        requeuer = Requeuer(
            DeadLetters(gateway.commands),
            rig.intake,
            models,
            rig.logs,
            finished,
            rig.histories(archive),
            rig.reader(archive),
        )
        again = await requeuer.requeue(letters["log_gone"])
        assert (await rig.ended(again.response_id)).text == text_of(3)
        old = letters["not_archivable"].id  # as a requeue that could not delete it any more
        await finished.send(FinishedEntry(id=damaged.id, status="completed", letter=old))

        async def is_replaced() -> bool:
            ids = [stored.id for stored in await seen.newest(10)]
            return len(ids) == 1 and old not in ids

        await until(is_replaced)
        stop.set()
        await asyncio.gather(*tasks)
    assert guarded.client.acl_log() == [], "somebody was refused something"


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(
    "command", [("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("GET", "other"), ("ACL", "LIST")]
)
async def test_nobody_may_more(connect: Any, user: str, command: tuple[str, ...]) -> None:
    with pytest.raises(Exception, match=r"(?i)no permissions"):
        await connect(user).commands.execute_command(*command)


async def test_an_operator_may_only_look(connect: Any) -> None:
    operator = connect("operator")
    await operator.ping()
    with pytest.raises(BrokerError, match=r"(?i)no permissions"):
        await WorkerRegistry(operator.commands, Leases(operator.commands, 1)).remove("w")
    with pytest.raises(BrokerError, match=r"(?i)no permissions"):
        await DeadLetters(operator.commands).remove("1-1")


async def test_without_the_right_password_nobody_comes_in(connect: Any, guarded: Node) -> None:
    with pytest.raises(BrokerError):
        await connect("worker", "wrong").ping()
    nobody = Broker(f"redis://{HOST}:{guarded.port}", timeout_s=2.0, connections=1)
    with pytest.raises(BrokerError):
        await nobody.ping()
    await nobody.close()


def test_no_password_stands_in_the_files() -> None:
    rules = (FOLDER / "users.acl").read_text().split()
    assert not [rule for rule in rules if rule[0] in ">#" or rule == "nopass"]
    for name in ("valkey.conf", "sentinel.conf"):
        text = (FOLDER / name).read_text()
        assert not re.search(r"^\s*(requirepass|masterauth|sentinel auth-pass)", text, re.MULTILINE), name


def test_the_kustomization_makes_one_map_of_every_file() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    found = subprocess.run([kubectl, "kustomize", str(FOLDER)], check=True, capture_output=True, text=True, timeout=30)
    for name in ("valkey.conf", "sentinel.conf", "users.acl", "set-passwords.sh"):
        assert f"  {name}: |" in found.stdout
