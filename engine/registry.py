"""Model entry → engine. Adapters are imported when they are needed: an install may lack their libraries."""

from __future__ import annotations

from engine.base import Engine
from schemas.models import ModelEntry
from schemas.settings import Settings

_SYNTHETIC_SLOTS = 256


def create_engine(entry: ModelEntry, settings: Settings) -> Engine:
    """The engine of a model, not started. Raises SettingsError."""
    if entry.engine == "synthetic":
        from engine.synthetic import SyntheticEngine

        return SyntheticEngine(
            tokens_per_second=settings.synthetic_tokens_per_second,
            ttft_ms=settings.synthetic_ttft_ms,
            capacity=settings.slots or _SYNTHETIC_SLOTS,
        )
    if entry.engine == "openai":
        from engine.remote import RemoteEngine

        return RemoteEngine(
            base_url=settings.openai_base_url,
            key=settings.openai_api_key,
            model=entry.upstream_model or entry.name,
            slots=settings.slots,
            timeout_s=settings.openai_timeout_s,
            args=entry.args,
        )
    if entry.engine == "vllm":
        from engine.vllm import VllmEngine

        return VllmEngine(
            path=entry.path,
            slots=settings.slots,
            context_length=entry.context_length,
            args=entry.args,
            adapters=entry.adapters,
            embeds=entry.embeds,
        )
    from engine.local import LocalEngine

    return LocalEngine(
        path=entry.path,
        slots=settings.slots,
        threads=settings.local_threads,
        context=entry.context_length or settings.local_context,
        args=entry.args,
    )
