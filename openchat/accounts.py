"""`openchat tenants` and `openchat keys`: accounts by hand; the admin endpoints do the same."""

from __future__ import annotations

import argparse
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from archive.api_keys import KeyStore
from archive.connect import open_archive
from archive.tenants import TenantStore
from openchat.table import table
from responses.accounts import Accounts
from schemas.accounts import SCOPES, TENANT_NAME, KeyInfo, Tenant, now_ms, parse_key_id, shown_key_id
from schemas.admin import TenantChanges
from schemas.errors import AccountNotFound, BrokerError, SettingsError
from schemas.settings import Settings
from streams.connect import connect_broker
from streams.projection import KeyProjection

_ACTOR = "cli"
_DAY_MS = 86_400_000


@asynccontextmanager
async def _accounts(settings: Settings) -> AsyncIterator[Accounts]:
    async with connect_broker(settings) as broker, open_archive(settings.database_url) as archive:
        yield Accounts(TenantStore(archive.engine), KeyStore(archive.engine), KeyProjection(broker.commands))


async def run_tenants(settings: Settings, arguments: argparse.Namespace) -> None:
    """Raises SettingsError, RequestError, ArchiveError; BrokerError where it is written but no gateway knows yet."""
    async with _accounts(settings) as accounts:
        match arguments.action:
            case "list":
                _print([_tenant(found) for found in await accounts.tenants.all()], _TENANT_HEAD, arguments.json)
            case "create":
                if not TENANT_NAME.fullmatch(arguments.tenant):
                    raise SettingsError(f"tenant {arguments.tenant!r}: use 1 to 64 letters, digits, '_', '.' or '-'")
                await accounts.create_tenant(arguments.tenant, actor=_ACTOR, retention_days=arguments.retention_days)
                print(arguments.tenant)
            case "disable" | "enable":
                changes = TenantChanges(disabled=arguments.action == "disable")
                _, is_effective = await accounts.change_tenant(arguments.tenant, changes, actor=_ACTOR)
                _check_effective(is_effective)


async def run_keys(settings: Settings, arguments: argparse.Namespace) -> None:
    """As `run_tenants`."""
    async with _accounts(settings) as accounts:
        match arguments.action:
            case "list":
                _print([_key(found) for found in await accounts.keys.all(arguments.tenant)], _KEY_HEAD, arguments.json)
            case "create":
                expires_at_ms = now_ms() + arguments.days * _DAY_MS if arguments.days else None
                key, info, is_effective = await accounts.create_key(
                    arguments.tenant,
                    actor=_ACTOR,
                    name=arguments.name,
                    scopes=tuple(arguments.scope or SCOPES),
                    expires_at_ms=expires_at_ms,
                )
                _show_new(key, info)
                _check_effective(is_effective)
            case "rotate":
                key, info, is_effective = await accounts.rotate_key(
                    _id(arguments.id), grace_s=arguments.grace, actor=_ACTOR
                )
                _show_new(key, info)
                _check_effective(is_effective)
            case "revoke":
                info, is_effective = await accounts.revoke_key(_id(arguments.id), actor=_ACTOR)
                print(f"{shown_key_id(info.id)} is revoked")
                _check_effective(is_effective)


def _show_new(key: str, info: KeyInfo) -> None:
    print(f"id:               {shown_key_id(info.id)}\nkey, shown once:  {key}")


def _check_effective(is_effective: bool) -> None:
    if not is_effective:
        raise BrokerError("it is written, but the broker is away: gateways will know when it is back")


def _id(text: str) -> str:
    key_id = parse_key_id(text)
    if key_id is None:
        raise AccountNotFound(f"There is no key {text!r}; `openchat keys list` shows their ids.")
    return key_id


_TENANT_HEAD = ["name", "created", "retention", "state"]
_KEY_HEAD = ["id", "tenant", "name", "prefix", "scopes", "state", "expires", "last used"]


def _tenant(tenant: Tenant) -> tuple[Any, list[str]]:
    retention = f"{tenant.retention_days} days" if tenant.retention_days is not None else "default"
    state = "active" if tenant.disabled_at_ms is None else "disabled"
    return tenant, [tenant.name, _day(tenant.created_at_ms), retention, state]


def _key(key: KeyInfo) -> tuple[Any, list[str]]:
    times = [_day(key.expires_at_ms), _day(key.last_used_at_ms)]
    words = [key.tenant, key.name, f"{key.prefix}…", ",".join(key.scopes), key.state(now_ms()), *times]
    shown = msgspec.structs.replace(key, id=shown_key_id(key.id), rotated_to=shown_key_id(key.rotated_to))
    return shown, [shown.id, *words]


def _day(at_ms: int | None) -> str:
    return "-" if at_ms is None else f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M}"


def _print(found: list[tuple[Any, list[str]]], head: list[str], as_json: bool) -> None:
    if as_json:
        for shown, _ in found:
            print(msgspec.json.encode(shown).decode())
    elif found:
        print("\n".join(table(head, [row for _, row in found])))
    else:
        print("there is none yet", file=sys.stderr)
