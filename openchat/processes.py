"""Child processes of the local stack: started, restarted with backoff, logs prefixed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping

from schemas.errors import SettingsError

SETTINGS_EXIT = 2
"""Exit code of a part whose settings are wrong: starting it again would not help."""
PROGRAM: tuple[str, ...] = (sys.executable, "-m", "openchat")
"""What a part is started with, in front of its own arguments."""
_COMPLAINT = "openchat: "
"""What the command line puts before an error; libraries may say more after it."""
_FIRST_BACKOFF_S = 0.2
_MAX_BACKOFF_S = 10.0
_STEADY_AFTER_S = 30.0


class Part:
    """One supervised child process."""

    def __init__(
        self,
        name: str,
        arguments: list[str],
        environ: Mapping[str, str],
        on_change: Callable[[], None],
        *,
        python: str = "",
    ) -> None:
        """`python`: the interpreter; empty: our own."""
        self.name = name
        self.pid: int | None = None
        self.complaint = ""
        """What it last said was wrong."""
        self._command = [python or PROGRAM[0], *PROGRAM[1:], *arguments]
        self._environ = dict(environ)
        self._on_change = on_change
        self._process: asyncio.subprocess.Process | None = None
        self._is_stopping = False

    async def run(self) -> None:
        """Keep the process running until `stop`. Raises SettingsError where it says that its settings are wrong."""
        backoff_s = _FIRST_BACKOFF_S
        while not self._is_stopping:
            started = time.monotonic()
            code = await self._run_once()
            if self._is_stopping:
                return
            if code == SETTINGS_EXIT:
                raise SettingsError(self.complaint or f"{self.name} can not start")
            if time.monotonic() - started > _STEADY_AFTER_S:
                backoff_s = _FIRST_BACKOFF_S
            self.say(f"ended with {_exit_text(code)}; starts again")
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
            backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)

    async def _run_once(self) -> int:
        # own session: Ctrl-C in the terminal reaches only the supervisor, which stops in order
        process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self._process, self.pid = process, process.pid
        self._on_change()
        await self._copy_lines(process)
        code = await process.wait()
        self.pid = None
        self._on_change()
        return code

    async def _copy_lines(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # longer than the stream's limit: dropped
                continue
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip()
            if text.startswith(_COMPLAINT):
                self.complaint = text.removeprefix(_COMPLAINT)
            self.say(text)

    def say(self, line: str) -> None:
        print(f"{self.name:<12} | {line}", file=sys.stderr, flush=True)

    async def stop(self, timeout_s: float, hurry: asyncio.Event) -> None:
        """SIGTERM, and SIGKILL after `timeout_s` or once somebody is in a hurry."""
        self._is_stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.terminate()
        ways = [asyncio.ensure_future(process.wait()), asyncio.ensure_future(hurry.wait())]
        await asyncio.wait(ways, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        ways[1].cancel()
        if process.returncode is None:
            self.say("is killed" if hurry.is_set() else "does not stop; killed")
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await ways[0]


def _exit_text(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a part: ours, with these settings."""
    return {**os.environ, **settings, "PYTHONUNBUFFERED": "1"}
