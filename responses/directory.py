"""Which models are there: those of the models file, and what workers announce, as one gateway sees it.

A model takes requests while a worker serves it; for a grace time after its last worker was seen, so that a
restart of the only one refuses nobody; and always with `scale_from_zero`. The picture is made anew about once a
second, so a request costs no look; only who asks for what is not in it waits for a fresh one.

While the broker is away the last picture holds, and no grace time passes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

import msgspec

from schemas.capabilities import Capabilities
from schemas.errors import BrokerError, ModelNotFound
from schemas.models import Models
from schemas.workers import Registered, WorkerInfo
from streams.leases import WorkerRegistry

log = logging.getLogger(__name__)

_EVERY_S = 1.0
_LONGEST_STEP_S = 3.0
"""So much time at most has passed for the grace between two looks: longer, and the broker or we were away."""
_KEEP_S = 60.0
"""Beyond the grace, a dead worker's entry is kept for other gateways, whose clocks may differ."""


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What a name stands for, and what can be asked of it."""

    name: str
    """As it is listed: the model's, or the adapter's."""
    model: str
    """Whose queue the request goes to."""
    adapter: str = ""
    engine: str
    """Several with commas, where workers differ."""
    capabilities: Capabilities | None = None
    """What every worker can do; None where none has been seen: the worker will check."""
    context_length: int = 0
    """Tokens; 0: not known."""
    is_alive: bool = False
    """A worker serves it now."""
    aliases: tuple[str, ...] = ()


class _Sighting(msgspec.Struct, frozen=True):
    info: WorkerInfo
    at_s: float
    """By the directory's own clock."""


class ModelDirectory:
    """The picture of one gateway. Bounded by the workers of the last minutes."""

    def __init__(self, models: Models, registry: WorkerRegistry, *, grace_s: float) -> None:
        self._models = models
        self._registry = registry
        self._grace_s = grace_s
        self._sightings: dict[str, _Sighting] = {}
        self._clock_s = 0.0
        self._last_look: float | None = None
        self._looks_begun = 0
        self._last_good = 0
        """Number of the last look that succeeded."""
        self._forgotten: list[Registered] = []
        self._looking = asyncio.Lock()
        self._picture = self._draw([])

    async def find(self, name: str) -> Served:
        """By name, alias or adapter. Raises ModelNotFound; BrokerError where only a fresh look could tell."""
        served = self._served(name)
        if served is None:
            await self._look_fresh()
            served = self._served(name)
        if served is None:
            raise self._not_found(name)
        return served

    def known(self, name: str) -> Served | None:
        """As `find`, in the last picture alone."""
        return self._served(name)

    async def listed(self) -> list[Served]:
        """Everything that takes requests, in the order of the models file. While the broker is away, as it was.

        Raises BrokerError before the first look.
        """
        try:
            await self._look_fresh()
        except BrokerError:
            if self._last_look is None:
                raise
        places = {entry.name: place for place, entry in enumerate(self._models.entries)}
        return sorted(
            self._picture.values(),
            key=lambda served: (places.get(served.model, len(places)), served.model, served.adapter),
        )

    async def run_refreshes(self) -> None:
        """Look about once a second, until cancelled."""
        while True:
            try:
                await self._look_fresh()
                await self._registry.prune(self._forgotten)
            except BrokerError as exc:
                log.warning("models_not_looked_up error=%s", exc)
            await asyncio.sleep(_EVERY_S)

    def _served(self, name: str) -> Served | None:
        entry = self._models.get(name)
        return self._picture.get(entry.name if entry is not None else name)

    def _not_found(self, name: str) -> ModelNotFound:
        if self._models.get(name) is not None or self._models.with_adapter(name) is not None:
            return ModelNotFound(
                f"The model {name[:200]!r} is known here, but no worker serves it now; try again later.", param="model"
            )
        there = ", ".join(sorted(self._picture)) or "none at the moment"
        return ModelNotFound(f"The model {name[:200]!r} does not exist; this server has: {there}.", param="model")

    async def _look_fresh(self) -> None:
        """A look that began after this was called; many that wait share one. Raises BrokerError."""
        begun = self._looks_begun
        async with self._looking:
            if self._last_good > begun:
                return
            self._looks_begun += 1
            await self._look()
            self._last_good = self._looks_begun

    async def _look(self) -> None:
        entries = await self._registry.all()
        now = time.monotonic()
        if self._last_look is not None:
            self._clock_s += min(now - self._last_look, _LONGEST_STEP_S)
        self._last_look = now
        self._note(entry for entry in entries if entry.info.is_ready)
        self._picture = self._draw([entry.info for entry in entries if entry.serves])
        self._forgotten = [entry for entry in entries if self._is_forgotten(entry)]

    def _note(self, entries: Iterable[Registered]) -> None:
        for entry in entries:
            consumer = entry.info.consumer
            if entry.is_alive:
                self._sightings[consumer] = _Sighting(entry.info, self._clock_s)
            elif consumer not in self._sightings:  # died before this gateway looked
                self._sightings[consumer] = _Sighting(entry.info, self._clock_s - _age_s(entry.info))
        limit = self._clock_s - self._grace_s
        self._sightings = {consumer: seen for consumer, seen in self._sightings.items() if seen.at_s > limit}

    def _is_forgotten(self, entry: Registered) -> bool:
        return not entry.is_alive and _age_s(entry.info) > self._grace_s + _KEEP_S

    def _draw(self, alive: list[WorkerInfo]) -> dict[str, Served]:
        """Name → what it stands for; where names collide the models file wins, then models over adapters."""
        recent = [seen.info for seen in self._sightings.values()]
        from_zero = [entry.name for entry in self._models.entries if entry.scale_from_zero]
        names = sorted({*from_zero, *(info.model for info in (*alive, *recent))})
        found = [served for name in names for served in self._of_model(name, alive, recent)]
        picture: dict[str, Served] = {}
        for served in sorted(found, key=lambda served: bool(served.adapter)):
            if not self._is_taken(served):
                picture.setdefault(served.name, served)
        return picture

    def _is_taken(self, served: Served) -> bool:
        """The models file gives this name to another."""
        entry = self._models.get(served.name) or self._models.with_adapter(served.name)
        return entry is not None and entry.name != served.model

    def _of_model(self, model: str, alive: list[WorkerInfo], recent: list[WorkerInfo]) -> list[Served]:
        """The model and its adapters, by its living workers, else by those seen last."""
        living = [info for info in alive if info.model == model]
        workers = living or [info for info in recent if info.model == model]
        entry = self._models.get(model)
        entry = entry if entry is not None and entry.name == model else None
        if workers:
            adapters = set.intersection(*(set(info.adapters) for info in workers))
        else:
            adapters = set(entry.adapters) if entry is not None else set()
        declared = entry.context_length if entry is not None else 0
        base = Served(
            name=model,
            model=model,
            engine=", ".join(sorted({info.engine for info in workers})) or (entry.engine if entry is not None else ""),
            capabilities=_shared(workers),
            context_length=min((info.context_length for info in workers if info.context_length), default=declared),
            is_alive=bool(living),
            aliases=tuple(entry.aliases) if entry is not None else (),
        )
        with_adapter = [msgspec.structs.replace(base, name=name, adapter=name, aliases=()) for name in sorted(adapters)]
        return [base, *with_adapter]


def _shared(workers: list[WorkerInfo]) -> Capabilities | None:
    """What all of them can do."""
    shared: Capabilities | None = None
    for info in workers:
        shared = info.capabilities if shared is None else shared.shared_with(info.capabilities)
    return shared


def _age_s(info: WorkerInfo) -> float:
    """Since it last said that it was there."""
    return max(0.0, time.time() - info.seen_at_ms / 1000)
