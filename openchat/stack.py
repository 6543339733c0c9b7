"""`openchat up`: broker, archive, workers and gateways on one machine, supervised."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import msgspec

from openchat.interpreters import check_python, inference_python, python_path
from openchat.parts import check_exposure, listen
from openchat.processes import Part, environment
from responses.public_addresses import parse_rules
from schemas.errors import OpenChatError, SettingsError
from schemas.models import ModelEntry, load_models
from schemas.settings import Settings
from streams.embedded import EmbeddedBroker

log = logging.getLogger(__name__)

_READY_POLL_S = 0.05
_READY_LIMIT_S = 600.0
_STOP_MARGIN_S = 10.0
_BROKER_PAUSE_S = 0.1
_STEADY_AFTER_S = 10.0
"""A broker that lived so long is started again without a longer pause."""


_ARCHIVE = "archive.sqlite3"


def default_database_url(data_dir: Path) -> str:
    """The archive where no other is set: a SQLite file in the data folder."""
    return f"sqlite+aiosqlite:///{data_dir / _ARCHIVE}"


class Stack:
    """Everything that `openchat up` starts."""

    def __init__(self, settings: Settings, *, host: str, port: int, workers: int, gateways: int) -> None:
        self._settings = settings
        self._host = host
        self._ports = [port + i for i in range(gateways)]
        self._workers = workers
        self._data_dir = Path(settings.data_dir).absolute()
        self._broker: EmbeddedBroker | None = None
        self._parts: list[Part] = []
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._error: OpenChatError | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Start, supervise, and stop in order. Raises SettingsError, BrokerError, ArchiveError."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        self._check()
        if not (self._settings.database_url or (self._data_dir / _ARCHIVE).exists()):
            await check_exposure(self._settings, self._host)  # there can be no managed key
        await asyncio.to_thread(self._check_interpreters)
        try:
            await self._start_broker()
            await self._migrate()
            await check_exposure(self._settings, self._host)
            self._start_parts()
            await self._announce()
            await self._stop.wait()
        finally:
            await self._stop_all()
        if self._error is not None:
            raise self._error

    def _on_signal(self) -> None:
        """The first one lets everything finish; the second kills what has not, in the same order: nothing is lost."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def _check(self) -> None:
        """What can be known before anything is started."""
        load_models(self._settings)
        parse_rules(ports=self._settings.outbound_ports, allowed=self._settings.outbound_allow)
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
            probe = self._data_dir / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as exc:
            raise SettingsError(
                f"the data folder {self._data_dir} can not be written: {exc.strerror}; choose another with --data-dir"
            ) from exc
        for port in self._ports:
            listen(self._host, port).close()

    def _check_interpreters(self) -> None:
        engines = {entry.engine for entry in load_models(self._settings).entries}
        for python in {inference_python(self._settings, engine) for engine in engines} - {sys.executable}:
            check_python(python, python_path(environment(self._part_settings())))

    async def _start_broker(self) -> None:
        if self._settings.redis_url:
            return
        _say("starting the broker")
        self._broker = EmbeddedBroker(self._data_dir)
        await self._broker.start()
        self._settings = msgspec.structs.replace(self._settings, redis_url=self._broker.url)
        self._supervise(self._keep_broker(self._broker))

    async def _keep_broker(self, broker: EmbeddedBroker) -> None:
        pause_s = _BROKER_PAUSE_S
        while True:
            began = time.monotonic()
            code = await broker.wait()
            if self._stop.is_set():
                return
            if time.monotonic() - began > _STEADY_AFTER_S:
                pause_s = _BROKER_PAUSE_S
            _say(f"the broker ended with {code}; starts again")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 5.0)
            await broker.start()
            self._write_processes()

    async def _migrate(self) -> None:
        from archive.migrate import migrate

        url = self._settings.database_url or default_database_url(self._data_dir)
        self._settings = msgspec.structs.replace(self._settings, database_url=url)
        await migrate(url, _say, wait_s=self._settings.database_wait_s)

    def _start_parts(self) -> None:
        models = load_models(self._settings).entries
        for i in range(max(self._workers, len(models))):
            self._start_worker(f"inference-{i + 1}", models[i % len(models)])
        self._start_part("archiver-1", ["archiver"], self._with_metrics(environment(self._part_settings())))
        for i, port in enumerate(self._ports):
            arguments = ["ingress", "--host", self._host, "--port", str(port)]
            self._start_part(f"ingress-{i + 1}", arguments, environment(self._part_settings()))

    def _start_worker(self, name: str, entry: ModelEntry) -> None:
        environ = self._with_metrics(environment(self._part_settings()))
        python = inference_python(self._settings, entry.engine)
        arguments = ["inference", "--serve", entry.name]
        if python == sys.executable:
            self._start_part(name, arguments, environ)
        else:
            self._start_part(name, arguments, python_path(environ), python=python)

    def _with_metrics(self, environ: dict[str, str]) -> dict[str, str]:
        """With a port of its own for the metrics of the next part."""
        first = self._settings.metrics_port
        return environ | {"OPENCHAT_METRICS_PORT": str(first + len(self._parts))} if first else environ

    def _start_part(self, name: str, arguments: list[str], environ: dict[str, str], *, python: str = "") -> None:
        command = [arguments[0], "--name", name, *arguments[1:], "--supervised"]
        part = Part(name, command, environ, self._write_processes, python=python)
        self._parts.append(part)
        self._supervise(part.run())

    def _part_settings(self) -> dict[str, str]:
        """What the flags and the defaults of `up` changed, as environment variables."""
        shown = {}
        for field in msgspec.structs.fields(Settings):
            value = getattr(self._settings, field.name)
            if value != field.default:
                text = str(value).lower() if isinstance(value, bool) else str(value)
                shown[f"OPENCHAT_{field.name.upper()}"] = text
        return shown

    def _supervise(self, work: object) -> None:
        task = asyncio.ensure_future(self._until_error(work))
        self._tasks.append(task)

    async def _until_error(self, work: object) -> None:
        try:
            await work  # type: ignore[misc]
        except OpenChatError as exc:
            self._error = self._error or exc
            self._stop.set()

    def _write_processes(self) -> None:
        """Name → pid of everything that runs, replaced as a whole."""
        pids = {"up": os.getpid()} | {part.name: part.pid for part in self._parts if part.pid is not None}
        if self._broker is not None:
            pids["broker"] = self._broker.pid
        path = self._data_dir / "processes.json"
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(pids, indent=2) + "\n", encoding="utf-8")
        draft.replace(path)

    async def _announce(self) -> None:
        """One line once every gateway is ready."""
        started = time.monotonic()
        for port in self._ports:
            while not self._stop.is_set() and not await asyncio.to_thread(_is_ready, self._host, port):
                if time.monotonic() - started > _READY_LIMIT_S:
                    raise SettingsError("not ready after ten minutes; the lines above say what is missing")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_READY_POLL_S):
                        await self._stop.wait()
        if not self._stop.is_set():
            models = ", ".join(entry.name for entry in load_models(self._settings).entries)
            addresses = " ".join(f"http://{_url_host(self._host)}:{port}" for port in self._ports)
            print(f"OpenChat is ready: {addresses} serves {models}. Ctrl-C stops it.", flush=True)

    async def _stop_all(self) -> None:
        """Gateways first, so that nothing new comes; then workers, archiver, broker."""
        self._stop.set()
        _say("stopping")
        limit_s = self._settings.drain_grace_s + _STOP_MARGIN_S
        for prefix in ("ingress", "inference", "archiver"):
            await asyncio.gather(*(p.stop(limit_s, self._hurry) for p in self._parts if p.name.startswith(prefix)))
        if self._broker is not None:
            await self._broker.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(OSError):
            (self._data_dir / "processes.json").unlink(missing_ok=True)


def _say(line: str) -> None:
    print(f"{'up':<12} | {line}", file=sys.stderr, flush=True)


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_ready(host: str, port: int) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    try:
        with urllib.request.urlopen(f"http://{_url_host(host)}:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
