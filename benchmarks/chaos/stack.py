"""`openchat up` with several of everything, as a process of its own that starts again what dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos.waiting import until
from tests.ports import free_ports

_ROOT = Path(__file__).parents[2]
_READY_LIMIT_S = 120.0
_STOP_LIMIT_S = 90.0


@dataclass(frozen=True)
class Layout:
    """How many processes of each kind, and which program starts them."""

    engine: str
    workers: int
    gateways: int
    sabotage: str = ""

    def command(self) -> list[str]:
        if self.sabotage:
            return [sys.executable, "-m", "benchmarks.chaos.sabotaged", self.sabotage]
        return [sys.executable, "-m", "openchat"]


class ChaosStack:
    """A running stack and its processes by name: `inference-1`, `ingress-2`, `archiver-1`, `broker`."""

    def __init__(self, data_dir: Path, ports: list[int], workers: int) -> None:
        self.data_dir = data_dir
        self.ports = ports
        self.workers = workers

    def pids(self) -> dict[str, int]:
        """What runs now; what has died and is not yet back is not there."""
        try:
            found: dict[str, int] = json.loads((self.data_dir / "processes.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return {name: pid for name, pid in found.items() if _is_alive(pid)}

    def named(self, prefix: str) -> list[str]:
        return sorted(name for name in self.pids() if name.startswith(prefix))

    def send(self, name: str, number: signal.Signals) -> int:
        """The pid that got the signal; 0 where there was none."""
        pid = self.pids().get(name, 0)
        with contextlib.suppress(ProcessLookupError):
            if pid:
                os.kill(pid, number)
        return pid

    def port_of(self, gateway: str) -> int:
        return self.ports[int(gateway.removeprefix("ingress-")) - 1]


def _is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@asynccontextmanager
async def running(folder: Path, layout: Layout, **settings: str) -> AsyncIterator[ChaosStack]:
    """A ready stack in a folder; its output goes to `up.log` there. `settings` without the prefix OPENCHAT_."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    data_dir = folder / "data"
    first = free_ports(layout.gateways)
    log_path = folder / "up.log"
    environ = {**os.environ, **{f"OPENCHAT_{name.upper()}": value for name, value in settings.items()}}
    options = ["--workers", str(layout.workers), "--gateways", str(layout.gateways), *await _archivers()]
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(*layout.command(), "up", "--engine", layout.engine, *options),
            *("--port", str(first), "--data-dir", str(data_dir)),
            cwd=_ROOT,
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    stack = ChaosStack(data_dir, [first + i for i in range(layout.gateways)], layout.workers)
    try:
        await _until_ready(process, log_path)
        yield stack
    finally:
        await _stop(process, stack)


async def _archivers() -> list[str]:
    """Two archivers, where `up` can start more than one."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "openchat", "up", "--help"), cwd=_ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return ["--archivers", "2"] if b"--archivers" in out else []


async def _until_ready(process: asyncio.subprocess.Process, log_path: Path) -> None:
    def text() -> str:
        return log_path.read_text(encoding="utf-8", errors="replace")

    await until(lambda: process.returncode is not None or "OpenChat is ready" in text(), _READY_LIMIT_S)
    if process.returncode is not None or "OpenChat is ready" not in text():
        raise RuntimeError(f"the stack did not start:\n{text()}")


async def _stop(process: asyncio.subprocess.Process, stack: ChaosStack) -> None:
    """As Ctrl-C does; nothing may be left stopped, for it could not end."""
    for name in stack.pids():
        stack.send(name, signal.SIGCONT)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    try:
        async with asyncio.timeout(_STOP_LIMIT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
