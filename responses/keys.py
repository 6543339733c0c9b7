"""Making keys, and those of the settings: only their SHA-256 is known here."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from schemas.accounts import TENANT_NAME
from schemas.errors import SettingsError

KEY_PREFIX = "oc-"
PREFIX_LENGTH = 10
"""So much of a key is shown again: enough to recognise it, 42 random bits of 256."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


def key_digest(key: str) -> str:
    """SHA-256, hex. Keys are long and random, so a fast hash is enough."""
    return hashlib.sha256(key.encode()).hexdigest()


def random_key() -> str:
    """A fresh key."""
    return f"{KEY_PREFIX}{secrets.token_urlsafe(32)}"


def new_key(tenant: str) -> tuple[str, str]:
    """A fresh key and its entry for OPENCHAT_API_KEYS; raises SettingsError for a bad tenant name."""
    if not TENANT_NAME.fullmatch(tenant):
        raise SettingsError(f"tenant {tenant!r}: use 1 to 64 letters, digits, '_', '.' or '-'")
    key = random_key()
    return key, f"{tenant}={key_digest(key)}"


def _entries(setting: str) -> list[str]:
    return [entry for part in setting.split(",") if (entry := part.strip())]


def admin_digests(setting: str) -> list[str]:
    """The hashes of OPENCHAT_ADMIN_KEYS. Raises SettingsError."""
    digests = _entries(setting)
    if not all(map(_DIGEST.fullmatch, digests)):
        raise SettingsError(
            "OPENCHAT_ADMIN_KEYS: an entry is no sha256 of 64 hex digits; `openchat key --admin` makes one"
        )
    return digests


class ApiKeys:
    """Which key of the settings belongs to which tenant."""

    def __init__(self, setting: str) -> None:
        """Raises SettingsError where an entry is no `tenant=<64 hex digits>`."""
        self._tenants: list[tuple[str, str]] = []
        for entry in _entries(setting):
            tenant, _, digest = entry.partition("=")
            if not TENANT_NAME.fullmatch(tenant) or not _DIGEST.fullmatch(digest):
                raise SettingsError(
                    "OPENCHAT_API_KEYS: an entry is not tenant=<sha256, 64 hex digits>; `openchat key TENANT` makes one"
                )
            self._tenants.append((tenant, digest))

    @property
    def is_empty(self) -> bool:
        return not self._tenants

    def tenant_of(self, digest: str) -> str | None:
        """The tenant of the key with this SHA-256; None: it is none of these."""
        found = None
        for tenant, known in self._tenants:  # no early exit: the time must not tell which
            if hmac.compare_digest(known, digest):
                found = tenant
        return found
