"""A real MariaDB for the tests, started by them, on the loopback interface."""

from __future__ import annotations

import getpass
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.ports import free_ports

_START_LIMIT_S = 60.0
_PATH = "/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin:/bin"
SERVER = shutil.which("mariadbd", path=_PATH)
INSTALL = shutil.which("mariadb-install-db", path=_PATH)


class MariaDB:
    """One server with an empty data folder; every test has databases of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_ports()

    def install(self) -> None:
        assert INSTALL is not None
        subprocess.run(
            [INSTALL, "--no-defaults", *self._common(), "--auth-root-authentication-method=normal", "--skip-test-db"],
            check=True,
            capture_output=True,
            timeout=_START_LIMIT_S,
        )

    def _common(self) -> list[str]:
        return [f"--datadir={self._folder / 'data'}", f"--user={getpass.getuser()}"]

    def start(self) -> None:
        """Returns when it accepts connections."""
        assert SERVER is not None
        options = {
            "socket": str(self._folder / "s"),
            "port": str(self.port),
            "bind-address": "127.0.0.1",
            "pid-file": str(self._folder / "pid"),
            "innodb-buffer-pool-size": "64M",
            "innodb-log-file-size": "16M",
        }
        command = [SERVER, "--no-defaults", *self._common(), *(f"--{k}={v}" for k, v in options.items())]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_LIMIT_S
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, "MariaDB does not start"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as sock:
                return bool(sock.recv(1))
        except OSError:
            return False

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def url(self, database: str, user: str = "root", password: str = "") -> str:
        return f"mysql+asyncmy://{user}:{password}@127.0.0.1:{self.port}/{database}"

    async def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"oc_{secrets.token_hex(6)}"
        await self.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return self.url(name)

    async def execute(self, *statements: str) -> list[tuple[object, ...]]:
        """As root; the rows of the last statement."""
        # Not above: conftest.py imports this module, also where a heavy engine is tested without SQLAlchemy.
        from sqlalchemy.ext.asyncio import create_async_engine

        engine = create_async_engine(self.url("mysql"))
        try:
            async with engine.begin() as connection:
                for statement in statements:
                    result = await connection.exec_driver_sql(statement)
                return [tuple(row) for row in result] if result.returns_rows else []
        finally:
            await engine.dispose()
