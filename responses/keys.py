"""API keys from the settings: only their SHA-256 is known here."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from schemas.errors import AuthenticationError, SettingsError

DEFAULT_TENANT = "default"
"""Everybody's tenant where no keys are set."""
_TENANT = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def key_digest(key: str) -> str:
    """SHA-256, hex. Keys are long and random, so a fast hash is enough."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key(tenant: str) -> tuple[str, str]:
    """A fresh key and its entry for OPENCHAT_API_KEYS; raises SettingsError for a bad tenant name."""
    if not _TENANT.fullmatch(tenant):
        raise SettingsError(f"tenant {tenant!r}: use 1 to 64 letters, digits, '_', '.' or '-'")
    key = f"oc-{secrets.token_urlsafe(32)}"
    return key, f"{tenant}={key_digest(key)}"


class ApiKeys:
    """Which key belongs to which tenant."""

    def __init__(self, setting: str) -> None:
        """Raises SettingsError where an entry is no `tenant=<64 hex digits>`."""
        self._tenants: list[tuple[str, str]] = []
        for entry in filter(None, (part.strip() for part in setting.split(","))):
            tenant, _, digest = entry.partition("=")
            if not _TENANT.fullmatch(tenant) or not _DIGEST.fullmatch(digest):
                raise SettingsError(
                    "OPENCHAT_API_KEYS: an entry is not tenant=<sha256, 64 hex digits>; `openchat key TENANT` makes one"
                )
            self._tenants.append((tenant, digest))

    @property
    def is_empty(self) -> bool:
        return not self._tenants

    def tenant_of(self, authorization: str | None) -> str:
        """The tenant of an `Authorization` header; raises AuthenticationError."""
        if self.is_empty:
            return DEFAULT_TENANT
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise AuthenticationError
        digest = key_digest(key.strip())
        found = None
        for tenant, known in self._tenants:  # no early exit: the time must not tell which
            if hmac.compare_digest(known, digest):
                found = tenant
        if found is None:
            raise AuthenticationError("The API key is wrong.")
        return found
