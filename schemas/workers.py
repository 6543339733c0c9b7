"""A worker as the registry shows it."""

from __future__ import annotations

import msgspec

from schemas.capabilities import Capabilities


class WorkerInfo(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One field of `oc:workers`; the worker is alive while its lease is. What it says is kept for a while after."""

    v: int = 1
    consumer: str
    """`<name>-<boot id>`: new for each process start and after each lost lease."""
    name: str
    model: str
    engine: str
    slots: int
    """Responses that it generates at once; known once it is ready."""
    capabilities: Capabilities = Capabilities()
    context_length: int = 0
    """Tokens; 0: not known."""
    adapters: tuple[str, ...] = ()
    """LoRA adapters that it serves beside the model itself."""
    running: int = 0
    """Slots in use."""
    tokens_per_s: float = 0.0
    """Over the last second or so."""
    pid: int = 0
    is_ready: bool = False
    """Its model is loaded and it reads requests."""
    loading: str = ""
    """While it is not: the last line of progress."""
    seen_at_ms: int = 0
    """When it last said this, unix ms by its own clock."""


class Registered(msgspec.Struct, frozen=True):
    """An entry of the registry, of a living worker or of a dead one."""

    info: WorkerInfo
    is_alive: bool
    raw: bytes
    """As it stands there."""

    @property
    def serves(self) -> bool:
        """It is alive and reads requests."""
        return self.is_alive and self.info.is_ready
