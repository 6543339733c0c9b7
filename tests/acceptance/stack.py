"""`openchat up` as a user runs it: real processes, killed for real."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import openai

from tests.ports import free_ports
from tests.waiting import until

READY_LIMIT_S = 90.0


def is_alive(pid: int) -> bool:
    """Not gone and not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


class RunningStack:
    """A stack with its output."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, data_dir: Path) -> None:
        self.process = process
        self.port = port
        self.data_dir = data_dir
        self.output: list[str] = []
        self._reader = asyncio.create_task(self._read())
        self._clients: list[openai.AsyncOpenAI] = []

    def client(self, gateway: int = 1, key: str = "unused") -> openai.AsyncOpenAI:
        """The official client, without its retries; closed with the stack."""
        client = openai.AsyncOpenAI(base_url=f"{self.url(gateway)}/v1", api_key=key, max_retries=0, timeout=120)
        self._clients.append(client)
        return client

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.output.append(line.decode().rstrip())

    @property
    def text(self) -> str:
        return "\n".join(self.output)

    def url(self, gateway: int = 1) -> str:
        return f"http://127.0.0.1:{self.port + gateway - 1}"

    def pids(self) -> dict[str, int]:
        try:
            found: dict[str, int] = json.loads((self.data_dir / "processes.json").read_text())
        except FileNotFoundError:
            return {}
        return found

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        pid = self.pids()[name]
        os.kill(pid, number)
        return pid

    async def ready(self) -> None:
        await until(self._is_ready_or_dead, timeout_s=READY_LIMIT_S, what="the ready line")
        assert self.is_ready, self.text

    @property
    def is_ready(self) -> bool:
        return any(line.startswith("OpenChat is ready") for line in self.output)

    def _is_ready_or_dead(self) -> bool:
        return self.is_ready or self.process.returncode is not None

    async def stop(self) -> int:
        """As Ctrl-C does; the exit code."""
        for client in self._clients:
            await client.close()
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGINT)
            async with asyncio.timeout(60):
                await self.process.wait()
        await self._reader
        assert self.process.returncode is not None
        return self.process.returncode


async def spawn(
    data_dir: Path,
    *arguments: str,
    port: int | None = None,
    gateways: int = 1,
    environ: Mapping[str, str] | None = None,
    **settings: str,
) -> RunningStack:
    """Start without waiting for readiness; `settings` are OPENCHAT_ variables without the prefix."""
    port = port or free_ports(gateways)
    command = ["-m", "openchat", "up", "--port", str(port), "--gateways", str(gateways), "--data-dir", str(data_dir)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        *arguments,
        env={
            **os.environ,
            **(environ or {}),
            **{f"OPENCHAT_{name.upper()}": value for name, value in settings.items()},
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=1 << 20,
    )
    return RunningStack(process, port, data_dir)


@asynccontextmanager
async def running(
    data_dir: Path,
    *arguments: str,
    gateways: int = 1,
    environ: Mapping[str, str] | None = None,
    **settings: str,
) -> AsyncIterator[RunningStack]:
    """A ready stack, stopped in the end; its output is shown where the test fails."""
    stack = await spawn(data_dir, *arguments, gateways=gateways, environ=environ, **settings)
    try:
        await stack.ready()
        yield stack
    except BaseException:
        print(stack.text)
        raise
    finally:
        await stack.stop()
