"""Broker URLs: one node, Sentinel or Cluster.

redis://[user:password@]host:port/db             one node; rediss:// with TLS; unix:///path/to/socket
redis+sentinel://[user:password@]host:port,host:port/db?service=name
redis+cluster://[user:password@]host:port,host:port

With TLS: `rediss+sentinel`, `rediss+cluster`. User and password are those of the data nodes; those of
the Sentinels are `sentinel_username` and `sentinel_password` in the query. Other parts of
the query are redis-py's connection options, like `ssl_ca_certs`.
"""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
from redis.asyncio.connection import parse_url

from schemas.errors import SettingsError

Kind = Literal["single", "sentinel", "cluster"]

_NAME = "OPENCHAT_REDIS_URL"
_KINDS: dict[str, Kind] = {
    "redis": "single",
    "rediss": "single",
    "unix": "single",
    "redis+sentinel": "sentinel",
    "rediss+sentinel": "sentinel",
    "redis+cluster": "cluster",
    "rediss+cluster": "cluster",
}
_SENTINEL_OPTIONS = {"sentinel_username": "username", "sentinel_password": "password"}
_DEFAULT_PORTS: dict[Kind, int] = {"single": 6379, "sentinel": 26379, "cluster": 6379}

HostPort = tuple[str, int]


class BrokerAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where the broker is, in redis-py's terms."""

    kind: Kind
    url: str
    """Of one node, as redis-py takes it; empty for the other kinds."""
    hosts: tuple[HostPort, ...] = ()
    """Sentinels, or nodes of the Cluster to begin with."""
    service: str = ""
    """Name of the master, as the Sentinels know it."""
    is_tls: bool = False
    options: dict[str, Any] = {}
    """For connections to data nodes: user, password, database, TLS, what the query says."""
    sentinel_options: dict[str, Any] = {}
    """For connections to Sentinels."""


def parse_broker_url(url: str) -> BrokerAddress:
    """Raises SettingsError for a URL that can not be used; it never shows the URL, which may hold a password."""
    scheme = url.partition("://")[0]
    if scheme not in _KINDS:
        allowed = ", ".join(f"{name}://" for name in _KINDS)
        raise SettingsError(f"{_NAME}: {scheme if '://' in url else 'empty'!r} is no supported scheme; use {allowed}")
    kind = _KINDS[scheme]
    try:
        return _single(url) if kind == "single" else _several(kind, url)
    except ValueError as exc:
        raise SettingsError(f"{_NAME}: {exc}") from exc


def _single(url: str) -> BrokerAddress:
    parse_url(url)  # a wrong number or option is found now
    return BrokerAddress(kind="single", url=url)


def _several(kind: Kind, url: str) -> BrokerAddress:
    parts = urlsplit(url)
    user, _, hosts = parts.netloc.rpartition("@")
    query = dict(parse_qsl(parts.query))
    service = query.pop("service", "")
    sentinel_options = {option: query.pop(name) for name, option in _SENTINEL_OPTIONS.items() if name in query}
    # what redis-py understands of a plain URL, it shall understand here: with its own parser
    plain = f"{parts.scheme.partition('+')[0]}://{user}{'@' if user else ''}host{parts.path}"
    options = dict(parse_url(f"{plain}?{urlencode(query)}"))
    for name in ("host", "port", "connection_class"):
        options.pop(name, None)
    address = BrokerAddress(
        kind=kind,
        url="",
        hosts=tuple(_host_port(text, _DEFAULT_PORTS[kind]) for text in hosts.split(",")),
        service=service,
        is_tls=parts.scheme.startswith("rediss"),
        options=options,
        sentinel_options=sentinel_options,
    )
    _check(address)
    return address


def _check(address: BrokerAddress) -> None:
    if address.kind == "sentinel":
        if not address.service:
            raise ValueError("name the master that the Sentinels watch: redis+sentinel://host:port/0?service=name")
    elif address.service or address.sentinel_options:
        raise ValueError("service and sentinel_… belong to redis+sentinel://")
    elif address.options.get("db"):
        raise ValueError("a Cluster has only database 0; leave the number out")


def _host_port(text: str, default_port: int) -> HostPort:
    parsed = urlsplit(f"//{text}")
    if not parsed.hostname:
        raise ValueError("every host needs a name: host:port,host:port")
    return parsed.hostname, parsed.port or default_port
