"""`oc:keys`: the API keys as gateways check them. A projection of SQL, made anew from there whenever it is lost.

One hash: SHA-256 of a key → `ProjectedKey`, and beside them `:version`, `:fingerprint` and `:required`. Whoever
finds no version knows that it is lost; a key that is missing while there is a version does not exist.
"""

from __future__ import annotations

import msgspec

from schemas.accounts import Picture, ProjectedKey
from schemas.decoding import UNDECODABLE
from schemas.errors import ProjectionLost
from streams.clients import Client
from streams.connect import Script, map_broker_errors
from streams.keys import KEYS

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(ProjectedKey).decode
_MAX_KEYS = 100_000
"""One script call writes all of them."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What stands beside the keys."""

    version: str
    """Empty: there is no projection."""
    fingerprint: str
    is_required: bool


class KeyProjection:
    """Reader's and writer's side."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._project = Script("project")

    async def look(self) -> Seen:
        """Raises BrokerError."""
        with map_broker_errors():
            found = await self._client.hmget(KEYS, ":version", ":fingerprint", ":required")
        version, fingerprint, required = (value.decode() if value is not None else "" for value in found)
        return Seen(version=version, fingerprint=fingerprint, is_required=required == "1")

    async def find(self, digest: str) -> ProjectedKey | None:
        """The key with this SHA-256. Raises BrokerError; ProjectionLost where nobody can tell."""
        with map_broker_errors():
            version, raw = await self._client.hmget(KEYS, ":version", digest)
        if version is None:
            raise ProjectionLost
        try:
            return _decode(raw) if raw is not None else None
        except UNDECODABLE as exc:
            raise ProjectionLost("the broker's entry of this API key can not be read") from exc

    async def put(self, picture: Picture, seen: Seen) -> bool:
        """Replace everything, if it is still as it was `seen`; else False. Raises BrokerError."""
        if len(picture.keys) > _MAX_KEYS:
            raise ProjectionLost(f"there are more than {_MAX_KEYS} API keys")
        entries = [part for digest, key in picture.keys.items() for part in (digest, _encode(key))]
        arguments = [seen.version, picture.fingerprint, int(picture.is_required), *entries]
        return bool(await self._project.run(self._client, [KEYS], arguments))
