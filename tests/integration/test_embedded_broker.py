"""The embedded broker: started by us, kept across restarts, gone with its supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from schemas.errors import SettingsError
from streams.connect import Broker
from streams.embedded import EmbeddedBroker, broker_url
from tests.acceptance.stack import is_alive
from tests.waiting import until


async def value_of(server: EmbeddedBroker, key: str) -> bytes | None:
    client = Broker(server.url, timeout_s=2, connections=1)
    try:
        found: bytes | None = await client.commands.get(key)
        return found
    finally:
        await client.close()


async def store(server: EmbeddedBroker, key: str) -> None:
    client = Broker(server.url, timeout_s=2, connections=1)
    await client.commands.set(key, "kept")
    await client.close()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_what_was_written_is_there_after_the_server_ended(server: EmbeddedBroker, how: signal.Signals) -> None:
    await store(server, "key")
    assert server.pid is not None
    os.kill(server.pid, how)
    assert await server.wait() in (0, -how)
    await server.start()
    assert await value_of(server, "key") == b"kept"


async def test_a_torn_end_of_the_append_only_file_is_accepted(server: EmbeddedBroker, tmp_path: Path) -> None:
    await store(server, "key")
    await server.stop()
    [increment] = (tmp_path / "broker-data" / "broker" / "appendonlydir").glob("*.incr.aof")
    with increment.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$4\r\nto")
    await server.start()
    assert await value_of(server, "key") == b"kept"


async def test_its_settings_are_those_that_we_promise(server: EmbeddedBroker) -> None:
    client = Broker(server.url, timeout_s=2, connections=1)
    for name, value in {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "stream-node-max-bytes": "1024",
        "port": "0",
        "unixsocketperm": "448",  # 0700
    }.items():
        found = await client.commands.config_get(name)
        assert found in ({name: value}, {name.encode(): value.encode()}, {name: "700"}), found
    await client.close()


async def test_a_second_broker_on_the_same_folder_is_refused(server: EmbeddedBroker, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="in use by another"):
        await EmbeddedBroker(tmp_path / "broker-data", lock_timeout_s=0.1).start()
    assert await value_of(server, "key") is None


async def test_a_folder_with_a_long_path_gets_a_socket_elsewhere(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    assert len(broker_url(deep)) < 107
    assert broker_url(deep) != broker_url(deep / "z")
    async with EmbeddedBroker(deep) as server:
        assert server.url == broker_url(deep)
        await store(server, "key")


async def test_a_folder_that_can_not_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SettingsError, match="can not use"):
        await EmbeddedBroker(tmp_path / "file" / "data").start()


SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from streams.embedded import EmbeddedBroker
async def main():
    async with EmbeddedBroker(Path(sys.argv[1])) as server:
        print(server.pid, flush=True)
        await server.wait()
asyncio.run(main())
"""


async def test_the_server_does_not_outlive_a_killed_supervisor_and_a_successor_takes_over(tmp_path: Path) -> None:
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SUPERVISOR, str(tmp_path / "data"), stdout=asyncio.subprocess.PIPE
    )
    assert supervisor.stdout is not None
    async with asyncio.timeout(30):
        pid = int(await supervisor.stdout.readline())
    supervisor.kill()
    await supervisor.wait()
    async with EmbeddedBroker(tmp_path / "data") as successor:
        assert successor.pid != pid
        await until(lambda: not is_alive(pid))
