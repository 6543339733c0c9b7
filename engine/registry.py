"""Model entry → engine. Adapters are imported when they are needed: an install may lack their libraries.

An engine outside this repository is found by the entry point `openchat.engines`: docs/extending.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType

from engine.base import Engine
from schemas.errors import SettingsError
from schemas.models import ModelEntry
from schemas.settings import Settings

Factory = Callable[[ModelEntry, Settings, Mapping[str, str]], Engine]
"""Of the model, the settings and the environment, where keys are. Raises SettingsError."""
ENTRY_POINTS = "openchat.engines"
"""The group; the name of an entry point is the engine's, its value a Factory."""

_SYNTHETIC_SLOTS = 256
_WITHOUT_ADAPTERS = ("local", "transformers", "synthetic")


def create_engine(entry: ModelEntry, settings: Settings, environ: Mapping[str, str] = MappingProxyType({})) -> Engine:
    """The engine of a model, not started; `environ` has the keys that the models file names. Raises SettingsError."""
    if entry.adapters and entry.engine in _WITHOUT_ADAPTERS:
        raise SettingsError(f"model {entry.name}: the engine {entry.engine} serves no adapters")
    try:
        factory = _BUILT_IN.get(entry.engine) or _installed(entry.engine)
        return factory(entry, settings, environ)
    except ImportError as exc:
        raise SettingsError(
            f"engine {entry.engine}: {exc}; its library is not installed here: `make install-{entry.engine}` makes "
            "an environment for an engine that we ship, OPENCHAT_PYTHON_INFERENCE names the interpreter of another"
        ) from exc


def engine_names() -> list[str]:
    """What there is: those built in, then those that packages here add."""
    return [*_BUILT_IN, *sorted({point.name for point in entry_points(group=ENTRY_POINTS)} - _BUILT_IN.keys())]


def _installed(name: str) -> Factory:
    found = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in found:
        raise SettingsError(
            f"engine {name!r} does not exist here; there are {', '.join(engine_names())}. "
            f"A package adds one with the entry point {ENTRY_POINTS!r}"
        )
    return _loaded(found[name])


def _loaded(point: EntryPoint) -> Factory:
    try:
        factory = point.load()
    except AttributeError as exc:
        raise SettingsError(f"engine {point.name}: entry point {point.value!r}: {exc}") from exc
    if not callable(factory):
        raise SettingsError(f"engine {point.name}: entry point {point.value!r} can not be called")
    made: Factory = factory
    return made


def _synthetic(entry: ModelEntry, settings: Settings, environ: Mapping[str, str]) -> Engine:
    from engine.synthetic.engine import SyntheticEngine

    return SyntheticEngine(
        tokens_per_second=settings.synthetic_tokens_per_second,
        ttft_ms=settings.synthetic_ttft_ms,
        capacity=settings.slots or _SYNTHETIC_SLOTS,
        jitter_ms=settings.synthetic_jitter_ms,
        fail_after=settings.synthetic_fail_after,
        stall_after=settings.synthetic_stall_after,
        context=entry.context_length,
        embeds=entry.embeds,
    )


def _openai(entry: ModelEntry, settings: Settings, environ: Mapping[str, str]) -> Engine:
    from engine.remote.engine import remote_engine

    return remote_engine(entry, settings, environ)


def _local(entry: ModelEntry, settings: Settings, environ: Mapping[str, str]) -> Engine:
    from engine.local.engine import LocalEngine

    return LocalEngine(
        path=entry.path,
        slots=settings.slots,
        threads=settings.local_threads,
        context=entry.context_length or settings.local_context,
        args=entry.args,
        embeds=entry.embeds,
    )


def _vllm(entry: ModelEntry, settings: Settings, environ: Mapping[str, str]) -> Engine:
    made: Engine = import_module("engine.vllm.engine").VllmEngine(
        path=entry.path,
        slots=settings.slots,
        context_length=entry.context_length,
        args=entry.args,
        adapters=entry.adapters,
        embeds=entry.embeds,
    )
    return made


def _transformers(entry: ModelEntry, settings: Settings, environ: Mapping[str, str]) -> Engine:
    from engine.transformers.engine import TransformersEngine

    return TransformersEngine(
        path=entry.path,
        slots=settings.slots,
        context_length=entry.context_length,
        args=entry.args,
        embeds=entry.embeds,
    )


_BUILT_IN: dict[str, Factory] = {
    "local": _local,
    "vllm": _vllm,
    "transformers": _transformers,
    "openai": _openai,
    "synthetic": _synthetic,
}
