"""A worker as the registry shows it."""

from __future__ import annotations

import msgspec

from schemas.capabilities import Capabilities


class WorkerInfo(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One field of `oc:workers`; the worker is alive while its lease is."""

    v: int = 1
    consumer: str
    """`<name>-<boot id>`: new for each process start and after each lost lease."""
    name: str
    model: str
    engine: str
    slots: int
    capabilities: Capabilities = Capabilities()
    context_length: int = 0
    """Tokens; 0: not known."""
    adapters: tuple[str, ...] = ()
    """LoRA adapters that it serves beside the model itself."""
    running: int = 0
    tokens_per_s: float = 0.0
    """Over the last second or so."""
    pid: int = 0
    is_ready: bool = False
    """Its model is loaded and it reads requests."""
