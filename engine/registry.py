"""Model entry → engine. Adapters are imported when they are needed: an install may lack their libraries."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from engine.base import Engine
from schemas.models import ModelEntry
from schemas.settings import Settings

_SYNTHETIC_SLOTS = 256


def create_engine(entry: ModelEntry, settings: Settings, environ: Mapping[str, str] = MappingProxyType({})) -> Engine:
    """The engine of a model, not started; `environ` has the keys that the models file names. Raises SettingsError."""
    if entry.engine == "synthetic":
        from engine.synthetic import SyntheticEngine

        return SyntheticEngine(
            tokens_per_second=settings.synthetic_tokens_per_second,
            ttft_ms=settings.synthetic_ttft_ms,
            capacity=settings.slots or _SYNTHETIC_SLOTS,
        )
    if entry.engine == "openai":
        from engine.remote_engine import remote_engine

        return remote_engine(entry, settings, environ)
    from engine.local import LocalEngine

    return LocalEngine(
        path=entry.path,
        slots=settings.slots,
        threads=settings.local_threads,
        context=entry.context_length or settings.local_context,
        args=entry.args,
    )
