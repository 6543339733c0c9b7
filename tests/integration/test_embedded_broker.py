"""The embedded broker against real servers: start, stop, death, and folders that can not be used."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import shutil
import signal
import socket
import stat
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis

from schemas.errors import BrokerError, SettingsError
from streams import embedded
from streams.embedded import EmbeddedBroker, broker_url, find_server
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")

SUPERVISOR = """
import asyncio, sys
from streams.embedded import EmbeddedBroker

async def main():
    async with EmbeddedBroker(sys.argv[1]) as broker:
        print(broker.pid, flush=True)
        await broker.wait()

asyncio.run(main())
"""


@asynccontextmanager
async def client_of(broker: EmbeddedBroker) -> AsyncIterator[Redis]:
    client = Redis.from_url(broker.url, decode_responses=True, protocol=2)
    try:
        yield client
    finally:
        await client.aclose()


async def write(broker: EmbeddedBroker, key: str, value: str) -> None:
    async with client_of(broker) as client:
        await client.set(key, value)


async def read(broker: EmbeddedBroker, key: str) -> str | None:
    async with client_of(broker) as client:
        return await client.get(key)


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def has_ended(pidfd: int, timeout_s: float) -> bool:
    """Whether the process ended in time; a zombie counts, which `kill(pid, 0)` can not tell."""
    return bool(select.select([pidfd], [], [], timeout_s)[0])


@asynccontextmanager
async def supervised(data_dir: Path) -> AsyncIterator[tuple[Process, int]]:
    """A process that holds a broker, to be killed by the test; and a pidfd of its server."""
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SUPERVISOR, str(data_dir), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert supervisor.stdout is not None
    pidfd = os.pidfd_open(int(await asyncio.wait_for(supervisor.stdout.readline(), 60)))
    try:
        yield supervisor, pidfd
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
        if supervisor.returncode is None:
            supervisor.kill()
        await supervisor.wait()


async def test_it_starts_and_answers_over_a_socket_that_only_we_can_open(tmp_path: Path) -> None:
    async with EmbeddedBroker(tmp_path) as broker, client_of(broker) as client:
        assert broker.url.startswith("unix:///")
        assert broker.url == broker_url(tmp_path)
        assert await client.ping()
        assert (await client.config_get("port"))["port"] == "0"
        mode = (tmp_path / "broker" / "valkey.sock").stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o700
        assert stat.S_IMODE((tmp_path / "broker").stat().st_mode) == 0o700


async def test_the_settings_of_the_conf_file_are_in_force(tmp_path: Path) -> None:
    expected = {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "aof-load-truncated": "yes",
        "maxmemory-policy": "noeviction",
        "stream-node-max-bytes": "1024",
        "save": "",
    }
    async with EmbeddedBroker(tmp_path) as broker, client_of(broker) as client:
        found = await client.config_get(*expected)
    assert found == expected


async def test_ctrl_c_in_the_terminal_does_not_reach_it(tmp_path: Path) -> None:
    async with EmbeddedBroker(tmp_path) as broker:
        assert os.getsid(broker.pid) == broker.pid


async def test_it_adds_a_loopback_port_where_one_is_given(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with EmbeddedBroker(tmp_path, port=port) as broker, client_of(broker) as client:
        assert broker.url == f"redis://127.0.0.1:{port}/0"
        assert await client.ping()


async def test_data_outlives_a_stop(tmp_path: Path) -> None:
    async with EmbeddedBroker(tmp_path) as broker:
        await write(broker, "key", "value")
    async with EmbeddedBroker(tmp_path) as broker:
        assert await read(broker, "key") == "value"


async def test_data_outlives_a_sigkill_and_the_same_object_starts_it_again(tmp_path: Path) -> None:
    async with EmbeddedBroker(tmp_path) as broker:
        async with client_of(broker) as client:
            await client.set("key", "value")
            assert await client.execute_command("WAITAOF", 1, 0, 10_000) == [1, 0]
        os.kill(broker.pid, signal.SIGKILL)
        assert await asyncio.wait_for(broker.wait(), 10) == -signal.SIGKILL
        await broker.start()
        assert await read(broker, "key") == "value"


async def test_half_a_command_at_the_end_of_the_file_does_not_keep_it_from_starting(tmp_path: Path) -> None:
    async with EmbeddedBroker(tmp_path) as broker:
        await write(broker, "key", "value")
    (log,) = (tmp_path / "broker" / "appendonlydir").glob("*.incr.aof")
    with log.open("ab") as tail:
        tail.write(b"*3\r\n$3\r\nSET\r\n$3\r\nke")
    async with EmbeddedBroker(tmp_path) as broker:
        assert await read(broker, "key") == "value"


async def test_loading_much_data_is_reported_and_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with EmbeddedBroker(tmp_path) as broker, client_of(broker) as client:
        pipe = client.pipeline(transaction=False)
        for number in range(4096):
            pipe.set(f"key-{number}", "value")
        await pipe.execute()
    slow = program(tmp_path / "slow-server", f'exec {find_server()} "$@" --key-load-delay 200')
    caplog.set_level(logging.INFO, "streams.embedded")
    async with EmbeddedBroker(tmp_path, binary=slow) as broker:
        assert await read(broker, "key-4095") == "value"
    assert "the broker is loading its data" in caplog.text


async def test_a_second_start_on_the_same_folder_is_refused_by_name(tmp_path: Path) -> None:
    async with EmbeddedBroker(tmp_path) as broker:
        with pytest.raises(SettingsError, match=rf"in use by another OpenChat \(process {os.getpid()}\)"):
            async with EmbeddedBroker(tmp_path, lock_timeout_s=0):
                pass
        await write(broker, "key", "the first is unharmed")


async def test_a_start_waits_for_a_predecessor_that_is_about_to_leave(tmp_path: Path) -> None:
    first, second = EmbeddedBroker(tmp_path), EmbeddedBroker(tmp_path, lock_timeout_s=60)
    await first.start()
    starting = asyncio.create_task(second.start())
    await write(first, "key", "value")
    assert not starting.done()
    await first.stop()
    await asyncio.wait_for(starting, 60)
    assert await read(second, "key") == "value"
    await second.stop()


@pytest.fixture
def temp_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temp folder of our own with a short path, where sockets go whose own path is too long."""
    with tempfile.TemporaryDirectory(prefix="oc-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


async def test_a_path_too_long_for_a_socket_works(tmp_path: Path, temp_folder: Path) -> None:
    folder = tmp_path / ("long" * 30)
    async with EmbeddedBroker(folder) as broker:
        assert broker.url == broker_url(folder)
        assert broker.url != broker_url(folder / "below")
        path = Path(broker.url.removeprefix("unix://"))
        assert path.is_relative_to(temp_folder)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        await write(broker, "key", "value")
    shutil.rmtree(path.parent)
    async with EmbeddedBroker(folder) as broker:
        assert await read(broker, "key") == "value"


@pytest.mark.usefixtures("temp_folder")
async def test_a_folder_for_the_socket_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    Path(broker_url(folder).removeprefix("unix://")).parent.chmod(0o755)
    with pytest.raises(SettingsError, match="not a private folder"):
        await EmbeddedBroker(folder).start()


async def test_a_path_with_spaces_and_letters_of_any_script_works(tmp_path: Path) -> None:
    async with EmbeddedBroker(tmp_path / 'a "folder" é 文') as broker:
        await write(broker, "key", "value")
        assert await read(broker, "key") == "value"


@pytest.mark.parametrize("below", [".", "below"])
async def test_a_folder_that_can_not_be_written_is_a_clear_error(tmp_path: Path, below: str) -> None:
    in_place = tmp_path / "data"
    in_place.write_text("a file in place of the folder: this fails for root as well")
    with pytest.raises(SettingsError, match=r"can not use .*data"):
        await EmbeddedBroker(in_place / below).start()


@only_linux
async def test_it_dies_with_its_supervisor_and_the_next_start_finds_the_data(tmp_path: Path) -> None:
    async with supervised(tmp_path) as (supervisor, pidfd):
        await write(EmbeddedBroker(tmp_path), "key", "value")
        supervisor.kill()
        assert await asyncio.to_thread(has_ended, pidfd, 30)
    async with EmbeddedBroker(tmp_path) as broker:
        assert await read(broker, "key") == "value"


@only_linux
async def test_nothing_starts_while_the_server_of_a_killed_supervisor_is_alive(tmp_path: Path) -> None:
    async with supervised(tmp_path) as (supervisor, pidfd):
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
        supervisor.kill()
        await supervisor.wait()
        with pytest.raises(SettingsError, match="in use"):
            await EmbeddedBroker(tmp_path, lock_timeout_s=0.1).start()
        signal.pidfd_send_signal(pidfd, signal.SIGCONT)
        async with EmbeddedBroker(tmp_path, lock_timeout_s=30) as broker:
            assert has_ended(pidfd, 0)
            await write(broker, "key", "value")


async def test_a_server_that_ends_while_it_starts_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    broken = program(tmp_path / "broken", "echo 'no memory today'; exit 3")
    with pytest.raises(BrokerError, match=r"exit code 3.*[\s\S]*no memory today"):
        await EmbeddedBroker(tmp_path, binary=broken).start()


async def test_a_server_that_never_answers_is_ended_and_leaves_the_folder_free(tmp_path: Path) -> None:
    silent = program(tmp_path / "silent", "exec sleep 600")
    with pytest.raises(BrokerError, match="did not answer"):
        await EmbeddedBroker(tmp_path, binary=silent, start_timeout_s=0.2).start()
    async with EmbeddedBroker(tmp_path, lock_timeout_s=0) as broker, client_of(broker) as client:
        assert await client.ping()


async def test_a_start_that_is_cancelled_leaves_the_folder_free(tmp_path: Path) -> None:
    silent = program(tmp_path / "silent", "echo started; exec sleep 600")
    broker = EmbeddedBroker(tmp_path, binary=silent)
    starting = asyncio.create_task(broker.start())
    log = broker.log_path
    await until(lambda: log.exists() and "started" in log.read_text(), timeout_s=30, what="the program to start")
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    async with EmbeddedBroker(tmp_path, lock_timeout_s=0) as after, client_of(after) as client:
        assert await client.ping()


@only_linux
async def test_a_server_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_STOP_TIMEOUT_S", 0.2)
    broker = EmbeddedBroker(tmp_path)
    await broker.start()
    pidfd = os.pidfd_open(broker.pid)
    try:
        os.kill(broker.pid, signal.SIGSTOP)
        await broker.stop()
        assert has_ended(pidfd, 0)
    finally:
        os.close(pidfd)


async def test_a_program_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="OPENCHAT_REDIS_URL"):
        await EmbeddedBroker(tmp_path, binary=tmp_path / "missing").start()


async def test_redis_7_starts_with_the_same_settings(tmp_path: Path) -> None:
    redis = shutil.which("redis-server")
    if redis is None:
        assert os.environ.get("CI") != "true", "redis-server is missing: run scripts/install-dev.sh"
        pytest.skip("redis-server is not installed")
    async with EmbeddedBroker(tmp_path, binary=redis) as broker, client_of(broker) as client:
        assert "redis_version" in await client.info("server")
        assert (await client.config_get("stream-node-max-bytes"))["stream-node-max-bytes"] == "1024"
        await client.set("key", "value")
    async with EmbeddedBroker(tmp_path, binary=redis) as broker:
        assert await read(broker, "key") == "value"
