"""Tenants and keys over HTTP, for who has an admin key. Every change leaves an audit row."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from ingress.bodies import read_body
from ingress.errors import json_response
from ingress.gateway import admin_of, gateway_of
from ingress.openapi.operation import Parameter, Shown, documented
from ingress.openapi.parameters import AFTER
from ingress.queries import integer
from schemas.accounts import KeyInfo, Tenant, now_ms, parse_key_id, shown_key_id
from schemas.admin import NewKey, NewTenant, Rotation, TenantChanges, parse_admin_body
from schemas.answers.admin import (
    AuditPage,
    ChangedKey,
    ChangedTenant,
    CreatedKey,
    KeyObject,
    KeyPage,
    TenantObject,
    TenantPage,
)
from schemas.errors import AccountConflict, AccountNotFound, InvalidRequest

router = APIRouter(prefix="/admin")

_MAX_BODY_BYTES = 64 << 10
_MOST_ROWS = 1000
_LIMIT = Parameter(
    name="limit", type=Annotated[int, Meta(ge=1, le=_MOST_ROWS)], description="At most so many rows.", default=100
)
_TENANT = Parameter(name="tenant", type=str, description="Of this tenant alone.")
_BEFORE = Parameter(
    name="before",
    type=Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")],
    description="The last id of the page before: those behind it.",
)


@router.get("/tenants")
@documented("List tenants", tag="Administration", scope="admin", answers=TenantPage, query=(_LIMIT, AFTER))
async def list_tenants(request: Request) -> Response:
    """By name: `limit`, and `after` (a name) for the next page."""
    admin_of(request)
    count = _count(request)
    after = request.query_params.get("after", "")
    found = await gateway_of(request).accounts.tenants.all(after=after, count=count + 1)
    return _list([_tenant(tenant) for tenant in found], count)


@router.post("/tenants")
@documented(
    "Make a tenant",
    tag="Administration",
    scope="admin",
    body=NewTenant,
    needs_body=True,
    example={"name": "alpha"},
    answers={201: Shown(types=(TenantObject,))},
    errors=(AccountConflict,),
)
async def create_tenant(request: Request) -> Response:
    actor = admin_of(request)
    body = parse_admin_body(await read_body(request, _MAX_BODY_BYTES), NewTenant)
    accounts = gateway_of(request).accounts
    tenant = await accounts.create_tenant(
        body.name, actor=actor, metadata=body.metadata, retention_days=body.retention_days, limits=body.limits
    )
    return json_response(_tenant(tenant), 201)


@router.get("/tenants/{tenant}")
@documented("Show a tenant", tag="Administration", scope="admin", answers=TenantObject, errors=(AccountNotFound,))
async def retrieve_tenant(request: Request, tenant: str) -> Response:
    admin_of(request)
    return json_response(_tenant(await gateway_of(request).accounts.tenants.find(tenant)))


@router.post("/tenants/{tenant}")
@documented(
    "Change a tenant",
    tag="Administration",
    scope="admin",
    body=TenantChanges,
    answers=ChangedTenant,
    errors=(AccountNotFound, AccountConflict),
)
async def change_tenant(request: Request, tenant: str) -> Response:
    """`disabled: true` closes all its keys within a second."""
    actor = admin_of(request)
    changes = parse_admin_body(await read_body(request, _MAX_BODY_BYTES), TenantChanges)
    changed, is_effective = await gateway_of(request).accounts.change_tenant(tenant, changes, actor=actor)
    return json_response(_tenant(changed) | {"effective": is_effective})


@router.get("/keys")
@documented(
    "List keys",
    tag="Administration",
    scope="admin",
    answers=KeyPage,
    query=(_TENANT, _LIMIT, AFTER),
    errors=(AccountNotFound,),
)
async def list_keys(request: Request) -> Response:
    """Of one tenant (`tenant`) or all, the oldest first: `limit`, and `after` (an id) for the next page."""
    admin_of(request)
    count, after = _count(request), request.query_params.get("after")
    found = await gateway_of(request).accounts.keys.all(
        request.query_params.get("tenant"), after=_known(after) if after is not None else None, count=count + 1
    )
    return _list([_key(key) for key in found], count)


@router.post("/keys")
@documented(
    "Make a key",
    tag="Administration",
    scope="admin",
    body=NewKey,
    needs_body=True,
    example={"tenant": "alpha", "name": "laptop", "scopes": ["responses", "read"]},
    answers={201: Shown(types=(CreatedKey,))},
    errors=(AccountNotFound, AccountConflict),
)
async def create_key(request: Request) -> Response:
    """The answer is the only place where the key itself is ever shown."""
    actor = admin_of(request)
    body = parse_admin_body(await read_body(request, _MAX_BODY_BYTES), NewKey)
    key, info, is_effective = await gateway_of(request).accounts.create_key(
        body.tenant,
        actor=actor,
        name=body.name,
        scopes=body.scopes,
        limits=body.limits,
        expires_at_ms=body.expires_at_ms,
    )
    return json_response(_key(info) | {"key": key, "effective": is_effective}, 201)


@router.get("/keys/{key_id}")
@documented("Show a key", tag="Administration", scope="admin", answers=KeyObject, errors=(AccountNotFound,))
async def retrieve_key(request: Request, key_id: str) -> Response:
    admin_of(request)
    return json_response(_key(await gateway_of(request).accounts.keys.find(_known(key_id))))


@router.post("/keys/{key_id}/revoke")
@documented(
    "Revoke a key", tag="Administration", scope="admin", answers=ChangedKey, errors=(AccountNotFound, AccountConflict)
)
async def revoke_key(request: Request, key_id: str) -> Response:
    """Within a second it opens nothing any more, at any gateway. May be repeated."""
    actor = admin_of(request)
    info, is_effective = await gateway_of(request).accounts.revoke_key(_known(key_id), actor=actor)
    return json_response(_key(info) | {"effective": is_effective})


@router.post("/keys/{key_id}/rotate")
@documented(
    "Replace a key",
    tag="Administration",
    scope="admin",
    body=Rotation,
    answers={201: Shown(types=(CreatedKey,))},
    errors=(AccountNotFound, AccountConflict),
)
async def rotate_key(request: Request, key_id: str) -> Response:
    """A new key; the old one still opens for `grace_s`."""
    actor = admin_of(request)
    body = parse_admin_body(await read_body(request, _MAX_BODY_BYTES), Rotation)
    accounts = gateway_of(request).accounts
    key, info, is_effective = await accounts.rotate_key(_known(key_id), grace_s=body.grace_s, actor=actor)
    return json_response(_key(info) | {"key": key, "effective": is_effective}, 201)


@router.get("/audit")
@documented("List what was done", tag="Administration", scope="admin", answers=AuditPage, query=(_LIMIT, _BEFORE))
async def list_audit(request: Request) -> Response:
    """What was done, the newest first: `limit`, and `before` (an id) for the next page."""
    admin_of(request)
    count = _count(request)
    before = request.query_params.get("before")
    if before is not None and parse_key_id(before) != before:
        raise InvalidRequest("before must be the id of an audit row.", param="before")
    records = await gateway_of(request).audit.newest(count + 1, before=before)
    return _list([{"object": "audit", **msgspec.to_builtins(record)} for record in records], count)


def _count(request: Request) -> int:
    return integer(request, "limit", 100, least=1, most=_MOST_ROWS)


def _list(data: list[dict[str, Any]], count: int) -> Response:
    """A page: `data` has one more than `count` where there is another."""
    return json_response({"object": "list", "data": data[:count], "has_more": len(data) > count})


def _known(text: str) -> str:
    key_id = parse_key_id(text)
    if key_id is None:
        raise AccountNotFound(f"There is no key {text[:100]!r}.")
    return key_id


def _tenant(tenant: Tenant) -> dict[str, Any]:
    return {"object": "tenant", **msgspec.to_builtins(tenant)}


def _key(key: KeyInfo) -> dict[str, Any]:
    ids = {"id": shown_key_id(key.id), "rotated_to": shown_key_id(key.rotated_to) or None}
    return {"object": "api_key", **msgspec.to_builtins(key), **ids, "state": key.state(now_ms())}
