"""The arguments of `openchat tenants` and `openchat keys`. Apart, so that reading them imports no database."""

from __future__ import annotations

import argparse
from typing import Any

from schemas.accounts import SCOPES


def add_tenant_actions(tenants: argparse.ArgumentParser) -> None:
    """list, create, disable, enable."""
    actions = tenants.add_subparsers(required=True, metavar="ACTION", dest="action")
    _add(actions, "list", "all tenants").add_argument("--json", action="store_true", help="one JSON object a line")
    create = _add(actions, "create", "a tenant, to make keys for")
    create.add_argument("tenant")
    create.add_argument("--retention-days", type=_count, metavar="N", help="keep its responses so long")
    for name, help in (("disable", "close all its keys"), ("enable", "open them again")):
        _add(actions, name, help).add_argument("tenant")


def add_key_actions(keys: argparse.ArgumentParser) -> None:
    """list, create, revoke, rotate."""
    actions = keys.add_subparsers(required=True, metavar="ACTION", dest="action")
    shown = _add(actions, "list", "all keys, without the keys themselves")
    shown.add_argument("tenant", nargs="?", help="only of this one")
    shown.add_argument("--json", action="store_true", help="one JSON object a line")
    create = _add(actions, "create", "a key for a tenant; it is shown once")
    create.add_argument("tenant")
    create.add_argument("--name", default="key", help="for people")
    create.add_argument("--scope", action="append", choices=SCOPES, help="what it may do, repeatable (default: all)")
    create.add_argument("--days", type=_count, metavar="N", help="it expires after so many (default: never)")
    _add(actions, "revoke", "close a key within a second, for good").add_argument("id")
    rotate = _add(actions, "rotate", "a new key in the place of one")
    rotate.add_argument("id")
    rotate.add_argument(
        "--grace",
        type=_seconds,
        default=3600,
        metavar="SECONDS",
        help="the old one opens so long (default: 3600)",
    )


def _add(actions: Any, name: str, help: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = actions.add_parser(name, help=help, description=help)
    sub.add_argument("--data-dir", default=argparse.SUPPRESS, help="data folder (default: .openchat)")
    return sub


def _count(text: str) -> int:
    return _bounded(text, 1, 36_500)


def _seconds(text: str) -> int:
    return _bounded(text, 0, 30 * 86_400)


def _bounded(text: str, least: int, most: int) -> int:
    value = int(text)
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"must be {least} to {most}")
    return value
