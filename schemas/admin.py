"""Bodies of the admin endpoints. Names are ours, so an unknown field is an error."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from schemas.accounts import SCOPES, Scope
from schemas.decoding import decode_body
from schemas.errors import InvalidRequest
from schemas.field_errors import field_error

_TenantName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.-]{1,64}\Z")]
_KeyName = Annotated[str, Meta(min_length=1, max_length=200)]
_Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]
_Limits = Annotated[dict[Annotated[str, Meta(max_length=64)], Any], Meta(max_length=16)]
_Days = Annotated[int, Meta(ge=1, le=36_500)]
_Scopes = Annotated[tuple[Scope, ...], Meta(min_length=1, max_length=len(SCOPES))]
_UnixMs = Annotated[int, Meta(ge=0, le=253_402_300_799_000)]
_MAX_LIMITS_BYTES = 4096


class NewTenant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be said of a tenant that is made."""

    name: _TenantName
    metadata: _Metadata = {}
    retention_days: _Days | None = None
    limits: _Limits = {}


class TenantChanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is not given stays as it is."""

    metadata: _Metadata | UnsetType = UNSET
    retention_days: _Days | UnsetType | None = UNSET
    limits: _Limits | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET


class NewKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be said of a key that is made."""

    tenant: _TenantName
    name: _KeyName = "key"
    scopes: _Scopes = SCOPES
    limits: _Limits = {}
    expires_at_ms: _UnixMs | None = None


class Rotation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a key is replaced."""

    grace_s: Annotated[int, Meta(ge=0, le=30 * 86_400)] = 3600
    """So long the old one still opens."""


Shape = TypeVar("Shape", NewTenant, TenantChanges, NewKey, Rotation)


def parse_admin_body(raw: bytes, kind: type[Shape]) -> Shape:
    """The typed body; an empty one is an empty object. Raises InvalidRequest with `param` set."""
    values = decode_body(raw or b"{}")
    try:
        body = msgspec.convert(values, kind)
    except msgspec.ValidationError as exc:
        raise field_error(str(exc)) from exc
    check_limits(getattr(body, "limits", {}))
    return body


def check_limits(limits: Any) -> None:
    """Raises InvalidRequest where they are too large to be kept with every key."""
    if limits and limits is not UNSET and len(msgspec.json.encode(limits)) > _MAX_LIMITS_BYTES:
        raise InvalidRequest(f"limits: more than {_MAX_LIMITS_BYTES} bytes of JSON.", param="limits")
