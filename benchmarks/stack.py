"""A stack of its own for each run: `openchat up` with the synthetic engine in a temporary folder."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.process import cpu_s, memory_bytes

_READY_LIMIT_S = 60.0
_STOP_LIMIT_S = 60.0

PARTS = {"gateway": "ingress-1", "worker": "inference-1", "broker": "broker", "archiver": "archiver-1"}
"""Column of the tables → name in processes.json."""


class BenchStack:
    """A running stack: where it listens, and its processes."""

    def __init__(self, port: int, data_dir: Path) -> None:
        self.port = port
        self.data_dir = data_dir
        pids = json.loads((data_dir / "processes.json").read_text(encoding="utf-8"))
        self._pids: dict[str, int] = {part: pids[name] for part, name in PARTS.items()}

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds of each part until now, and of this process, which is the client."""
        return {part: cpu_s(pid) for part, pid in self._pids.items()} | {"client": cpu_s(os.getpid())}

    def memory(self) -> dict[str, int]:
        """Bytes of each part."""
        return {part: memory_bytes(pid) for part, pid in self._pids.items()}

    def send(self, part: str, number: signal.Signals) -> None:
        os.kill(self._pids[part], number)


@asynccontextmanager
async def running(**settings: str) -> AsyncIterator[BenchStack]:
    """One gateway, one worker, archiver and broker, ready; `settings` without the prefix OPENCHAT_."""
    with tempfile.TemporaryDirectory(prefix="openchat-bench-") as folder:
        port = _free_port()
        environ = {name: value for name, value in os.environ.items() if not name.startswith("OPENCHAT_")}
        environ["OPENCHAT_DRAIN_GRACE_S"] = "0"
        environ |= {f"OPENCHAT_{name.upper()}": value for name, value in settings.items()}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "openchat", "up", "--engine", "synthetic"),
            *("--port", str(port), "--data-dir", folder),
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output: list[str] = []
        ready = asyncio.Event()
        reading = asyncio.create_task(_read(process, output, ready))
        try:
            await _until_ready(ready, reading, output)
            yield BenchStack(port, Path(folder))
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            async with asyncio.timeout(_STOP_LIMIT_S):
                await process.wait()
                await reading


async def _read(process: asyncio.subprocess.Process, output: list[str], ready: asyncio.Event) -> None:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        output.append(line.decode().rstrip())
        if output[-1].startswith("OpenChat is ready"):
            ready.set()


async def _until_ready(ready: asyncio.Event, reading: asyncio.Task[None], output: list[str]) -> None:
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait([waiting, reading], timeout=_READY_LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not ready.is_set():
        raise RuntimeError("the stack did not start:\n" + "\n".join(output))


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
