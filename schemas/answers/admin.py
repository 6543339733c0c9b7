"""Tenants, keys and the audit, as administrators see them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from schemas.accounts import Scope
from schemas.answers.common import Answer, Page, UnixMs

KeyName = Annotated[str, Meta(pattern=r"\Akey_[0-9a-f]{32}\Z")]
"""Id of a key."""


class TenantObject(Answer, frozen=True, kw_only=True):
    """An account."""

    object: Literal["tenant"]
    name: str
    created_at_ms: UnixMs
    metadata: dict[str, str]
    retention_days: int | None
    """Null: the default of the deployment."""
    limits: dict[str, Any]
    disabled_at_ms: UnixMs | None
    """Since when its keys open nothing."""


class ChangedTenant(TenantObject, frozen=True, kw_only=True):
    """A tenant after a change."""

    effective: bool
    """False: the broker could not be told yet; a gateway does it within about ten seconds."""


class KeyObject(Answer, frozen=True, kw_only=True):
    """An API key, never the key itself."""

    object: Literal["api_key"]
    id: KeyName
    tenant: str
    name: str
    prefix: str
    scopes: list[Scope]
    limits: dict[str, Any]
    created_at_ms: UnixMs
    expires_at_ms: UnixMs | None
    last_used_at_ms: UnixMs | None
    revoked_at_ms: UnixMs | None
    rotated_to: KeyName | None
    """The key that takes its place."""
    state: Literal["active", "expired", "revoked"]


class ChangedKey(KeyObject, frozen=True, kw_only=True):
    """A key after a change."""

    effective: bool
    """False: the broker could not be told yet; a gateway does it within about ten seconds."""


class CreatedKey(ChangedKey, frozen=True, kw_only=True):
    """A new key, with the key itself: it is shown here and nowhere else."""

    key: str


class AuditObject(Answer, frozen=True, kw_only=True):
    """Who did what to whom."""

    object: Literal["audit"]
    id: str
    at_ms: UnixMs
    actor: str
    """`cli`, or `admin:` and the first digits of the admin key's SHA-256."""
    action: str
    tenant: str
    subject: str
    detail: dict[str, Any]


class TenantPage(Page[TenantObject], frozen=True, kw_only=True):
    """A part of the list of tenants."""


class KeyPage(Page[KeyObject], frozen=True, kw_only=True):
    """A part of the list of keys."""


class AuditPage(Page[AuditObject], frozen=True, kw_only=True):
    """A part of the audit."""
