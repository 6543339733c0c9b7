"""What an attempt at a response needs of its worker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from consumers.isolation import Isolation
from consumers.metrics import EngineMetrics
from consumers.rate import Rate
from consumers.stall import StallWatch
from engine.base import Engine
from schemas.errors import EngineDead
from schemas.models import ModelEntry
from streams.leases import Leases
from streams.logs import ResponseLogs
from streams.writers import Writers


class AttemptContext(msgspec.Struct, frozen=True):
    """The same for all attempts, until the worker has another consumer name."""

    consumer: str
    logs: ResponseLogs
    leases: Leases
    writers: Writers
    tokens: Rate
    metrics: EngineMetrics
    engine: Engine
    model: ModelEntry
    max_attempts: int
    isolation: Isolation
    stall: StallWatch
    revive_engine: Callable[[EngineDead], Awaitable[None]]
    """Called after EngineDead; returns when the engine serves again, or raises EngineDead."""
