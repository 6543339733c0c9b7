"""`openchat doctor`: what works, what does not, and what to do."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

from archive.connect import open_archive
from openchat.interpreters import check_python, inference_python, python_path
from schemas.errors import OpenChatError, SettingsError
from schemas.models import load_models
from schemas.settings import Settings, effective_settings
from schemas.workers import WorkerInfo
from streams.connect import Broker, connect_broker
from streams.dead import DeadLetters
from streams.finished import FinishedStream
from streams.keys import ARCHIVER_GROUP
from streams.leases import Leases, WorkerRegistry
from streams.queue import RequestQueue


async def examine(settings: Settings) -> None:
    """Print settings and findings; raises SettingsError where something does not work."""
    for name, value in effective_settings(settings):
        print(f"{name}={value}")
    print()
    results = [
        await _try("models", lambda: _models(settings)),
        await _try("interpreters", lambda: _interpreters(settings)),
    ]
    async with connect_broker(settings) as broker:
        results.append(await _try("broker", lambda: _broker(broker)))
        if results[-1]:
            results.append(await _try("workers", lambda: _workers(settings, broker)))
            results.append(await _try("queues", lambda: _queues(settings, broker)))
    results.append(await _try("archive", lambda: _archive(settings)))
    if not all(results):
        raise SettingsError("something does not work; see above")


async def _try(name: str, check: Callable[[], Awaitable[str]]) -> bool:
    try:
        print(f"ok    {name}: {await check()}")
    except OpenChatError as exc:
        print(f"WRONG {name}: {exc.message}")
        return False
    return True


async def _models(settings: Settings) -> str:
    return ", ".join(f"{entry.name} ({entry.engine})" for entry in load_models(settings).entries)


async def _interpreters(settings: Settings) -> str:
    """Those with which `openchat up` would start its workers."""
    found = {entry.engine: inference_python(settings, entry.engine) for entry in load_models(settings).entries}
    for python in set(found.values()) - {sys.executable}:
        await asyncio.to_thread(check_python, python, python_path(os.environ))
    return ", ".join(f"{engine}: {python}" for engine, python in found.items())


async def _broker(broker: Broker) -> str:
    await broker.ping()
    return "answers"


async def _workers(settings: Settings, broker: Broker) -> str:
    leases = Leases(broker.commands, settings.lease_ms)
    workers = await WorkerRegistry(broker.commands, leases).living()
    served = {worker.model for worker in workers if worker.is_ready}
    needed = [entry.name for entry in load_models(settings).entries if not entry.scale_from_zero]
    without = [name for name in needed if name not in served]
    if without:
        loading = "".join(f"; {w.consumer} still loads {w.model}: {w.loading}" for w in workers if not w.is_ready)
        raise SettingsError(f"no worker serves {', '.join(without)}: start `openchat inference`{loading}")
    return ", ".join(_worker(worker) for worker in workers) or "none, and none is needed"


def _worker(info: WorkerInfo) -> str:
    if not info.is_ready:
        return f"{info.consumer} ({info.model}, loads: {info.loading})"
    can = " ".join(info.capabilities.names)
    return f"{info.consumer} ({info.model}, {info.engine}, {info.running} of {info.slots}, can: {can})"


async def _queues(settings: Settings, broker: Broker) -> str:
    found = []
    for entry in load_models(settings).entries:
        queue = RequestQueue(broker.commands, entry.name)
        found.append(f"{entry.name}: {await queue.depth('interactive')} + {await queue.depth('batch')} open")
    lag = await FinishedStream(broker.commands).lag(ARCHIVER_GROUP)
    dead = await DeadLetters(broker.commands).count()
    return f"{'; '.join(found)}; {lag} to archive; {dead} dead letters"


async def _archive(settings: Settings) -> str:
    async with open_archive(settings.database_url) as archive:
        await archive.check()
    return "answers, schema is current"
