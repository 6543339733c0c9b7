"""Tenants, API keys, and who is asking."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec

from schemas.ids import new_response_id

Scope = Literal["responses", "embeddings", "read", "usage"]
"""What a key may do: ask for text (and cancel and delete), ask for vectors, read what is there, see what it cost."""
SCOPES: tuple[Scope, ...] = get_args(Scope)
DEFAULT_TENANT = "default"
"""Everybody's tenant where no keys are required."""
TENANT_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_encode = msgspec.json.Encoder(order="sorted").encode
_KEY_ID = re.compile(r"(?:key_)?([0-9a-f]{32})")


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks: a tenant, by one of its keys."""

    tenant: str
    key_id: str = ""
    """32 hex digits; empty: no key that SQL knows."""
    scopes: tuple[Scope, ...] = SCOPES
    limits: dict[str, Any] = {}
    """As they were given to the key."""


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """An account: responses, conversations, files, batches and usage belong to one."""

    name: str
    created_at_ms: int
    metadata: dict[str, str] = {}
    retention_days: int | None = None
    """None: the default of the deployment."""
    limits: dict[str, Any] = {}
    disabled_at_ms: int | None = None
    """Since when its keys open nothing."""


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An API key as it may be shown: never the key itself. Times are unix ms."""

    id: str
    """32 hex digits, time-ordered."""
    tenant: str
    name: str
    prefix: str
    """How the key begins, so that its owner recognises it."""
    scopes: tuple[Scope, ...] = SCOPES
    limits: dict[str, Any] = {}
    created_at_ms: int
    expires_at_ms: int | None = None
    last_used_at_ms: int | None = None
    """Some seconds late: it is written in batches."""
    revoked_at_ms: int | None = None
    rotated_to: str = ""
    """Id of the key that takes its place."""

    def state(self, now_ms: int) -> Literal["active", "expired", "revoked"]:
        if self.revoked_at_ms is not None:
            return "revoked"
        return "expired" if self.expires_at_ms is not None and self.expires_at_ms <= now_ms else "active"


class ProjectedKey(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A key as the broker holds it, under its SHA-256."""

    id: str
    tenant: str
    scopes: tuple[str, ...]
    """Not only those that this version knows."""
    limits: dict[str, Any] = {}
    expires_at_ms: int = 0
    """0: never."""


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """All keys that open something, by SHA-256, and whether one is required at all."""

    keys: Mapping[str, ProjectedKey]
    is_required: bool

    @property
    def fingerprint(self) -> str:
        """Equal for equal pictures."""
        return hashlib.sha256(_encode([self.is_required, sorted(self.keys.items())])).hexdigest()


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what to whom; written in the transaction of the change itself."""

    id: str
    at_ms: int
    actor: str
    """`cli`, or `admin:` and the first digits of the admin key's SHA-256."""
    action: str
    """Stable, for programs: `key.create`, `tenant.update`, …"""
    tenant: str
    subject: str
    """What it was done to: an id or a name."""
    detail: dict[str, Any] = {}


def now_ms() -> int:
    """Unix time."""
    return time.time_ns() // 1_000_000


def new_key_id() -> str:
    """A fresh id, by time."""
    return new_response_id()[5:]


def shown_key_id(key_id: str) -> str:
    """As people see it; empty for no key."""
    return f"key_{key_id}" if key_id else ""


def parse_key_id(text: str) -> str | None:
    """The digits of `key_…`, with or without the prefix; None where it is none."""
    match = _KEY_ID.fullmatch(text)
    return match[1] if match else None
