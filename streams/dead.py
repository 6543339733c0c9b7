"""`oc:dead`: dead letters, entries that nobody could serve. `openchat dead` shows them and sends them again."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import msgspec

from schemas.decoding import UNDECODABLE, looks_unstored
from schemas.errors import BadEntry, LetterNotFound
from schemas.ids import ResponseId, parse_response_id
from schemas.requests import DeadLetter, FinishedEntry, RequestEntry
from streams.clients import Client
from streams.connect import map_broker_errors
from streams.keys import DEAD

MAX_LETTERS = 100_000
"""Approximately; older ones go."""
LETTER_UNREADABLE = "letter_unreadable"
"""Reason shown for a letter that does not parse itself."""
_PAGE = 100
_ID = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(DeadLetter).decode
_decode_request = msgspec.json.Decoder(RequestEntry).decode
_decode_finished = msgspec.json.Decoder(FinishedEntry).decode
_decode_fields = msgspec.json.Decoder(dict[str, str]).decode


class Salvaged(msgspec.Struct, frozen=True):
    """What can be read of an entry that may not parse as a whole."""

    id: object = None
    tenant: object = None
    store: object = True
    """False in a letter of a request whose content may not be kept: see `bare_body`."""

    @property
    def response_id(self) -> ResponseId | None:
        return parse_response_id(self.id) if isinstance(self.id, str) else None


_decode_salvaged = msgspec.json.Decoder(Salvaged).decode


class StoredLetter(msgspec.Struct, frozen=True):
    """A letter and its entry id in `oc:dead`."""

    id: str
    letter: DeadLetter

    @property
    def at_ms(self) -> int:
        """When it was written, unix ms by the broker's clock."""
        return int(self.id.partition("-")[0])

    @property
    def salvaged(self) -> Salvaged:
        return salvage(_entry_text(self.letter.body).encode())

    def request(self) -> RequestEntry:
        """The request in it. Raises BadEntry."""
        if self.salvaged.store is False:
            raise BadEntry(f"dead letter {self.id}: it was asked with store: false, so what was asked is not kept")
        try:
            return _decode_request(_entry_text(self.letter.body))
        except UNDECODABLE as exc:
            raise BadEntry(f"the request in dead letter {self.id} does not parse: {exc}") from exc

    def finished(self) -> FinishedEntry:
        """The finished entry in it. Raises BadEntry."""
        try:
            return _decode_finished(self.letter.body)
        except UNDECODABLE as exc:
            raise BadEntry(f"the finished entry in dead letter {self.id} does not parse: {exc}") from exc


class DeadLetters:
    """Writer's and operator's side."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def put(self, letter: DeadLetter) -> str:
        """The id of the letter. Done twice it makes two. Raises BrokerError."""
        with map_broker_errors():
            entry_id = await self._client.xadd(DEAD, {"letter": _encode(letter)}, maxlen=MAX_LETTERS, approximate=True)
        return str(entry_id.decode())

    async def count(self) -> int:
        """Raises BrokerError."""
        with map_broker_errors():
            return int(await self._client.xlen(DEAD))

    async def newest(self, count: int) -> list[StoredLetter]:
        """Newest first. Raises BrokerError."""
        with map_broker_errors():
            rows = await self._client.xrevrange(DEAD, count=count)
        return [_stored(*row) for row in rows]

    async def find(self, letter_id: str) -> StoredLetter:
        """Raises LetterNotFound, BrokerError."""
        if _is_entry_id(letter_id):
            with map_broker_errors():
                rows = await self._client.xrange(DEAD, letter_id, letter_id)
            if rows:
                return _stored(*rows[0])
        raise LetterNotFound(f"There is no dead letter {letter_id[:100]!r}; `openchat dead list` shows what there is.")

    async def all(self) -> AsyncIterator[StoredLetter]:
        """Those that are there now, oldest first. Raises BrokerError."""
        newest = await self.newest(1)
        low = "-"
        while newest:
            with map_broker_errors():
                rows = await self._client.xrange(DEAD, low, newest[0].id, count=_PAGE)
            for row in rows:
                yield _stored(*row)
            if len(rows) < _PAGE:
                return
            low = f"({rows[-1][0].decode()}"

    async def remove(self, letter_id: str) -> None:
        """May be repeated. Raises BrokerError."""
        with map_broker_errors():
            await self._client.xdel(DEAD, letter_id)

    async def remove_of(self, response_id: ResponseId) -> int:
        """Every letter of a response; how many there were. Reads them all, which are few. Raises BrokerError."""
        removed = 0
        async for stored in self.all():
            if stored.salvaged.response_id == response_id:
                await self.remove(stored.id)
                removed += 1
        return removed


def is_unstored(fields: dict[bytes, bytes]) -> bool:
    """A request that asks for `store: false`; one that does not parse does so if it looks like it."""
    try:
        return not _decode_request(fields[b"request"]).request.store
    except (KeyError, *UNDECODABLE):
        return any(map(looks_unstored, fields.values()))


def bare_body(fields: dict[bytes, bytes]) -> str:
    """What a letter keeps of a request with `store: false`: whose it was, and nothing of its content."""
    salvaged = salvage(fields.get(b"request", b""))
    tenant = salvaged.tenant if isinstance(salvaged.tenant, str) else None
    return _encode(Salvaged(salvaged.response_id, tenant, False)).decode()


def own_body(fields: dict[bytes, bytes]) -> str:
    """What a letter keeps of a request: without what came before it, which others have and may delete."""
    try:
        entry = _decode_request(fields[b"request"])
    except (KeyError, *UNDECODABLE):
        return body_of(fields, "request")
    if not entry.history:
        return body_of(fields, "request")
    own = msgspec.structs.replace(entry.request, messages=entry.request.messages[entry.history :])
    return _encode(msgspec.structs.replace(entry, request=own, history=0)).decode()


def body_of(fields: dict[bytes, bytes], name: str) -> str:
    """An entry as a letter keeps it: the text of its one field `name`, else all its fields as a JSON object."""
    found = {_text(key): _text(value) for key, value in fields.items()}
    return found[name] if found.keys() == {name} else _encode(found).decode()


def salvage(raw: bytes) -> Salvaged:
    """As much as can be read; nothing where it is no JSON object."""
    try:
        return _decode_salvaged(raw.decode("utf-8", "replace"))
    except UNDECODABLE:
        return Salvaged()


def _entry_text(body: str) -> str:
    """The text of the request in a body: see `body_of`."""
    try:
        return _decode_fields(body).get("request", body)
    except UNDECODABLE:
        return body


def _is_entry_id(text: str) -> bool:
    return bool(_ID.fullmatch(text)) and all(int(part) < 1 << 64 for part in text.split("-"))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _stored(entry_id: bytes, fields: dict[bytes, bytes]) -> StoredLetter:
    try:
        letter = _decode(fields[b"letter"])
    except (KeyError, *UNDECODABLE):
        letter = DeadLetter(stream="", entry_id="", reason=LETTER_UNREADABLE, body=body_of(fields, "letter"))
    return StoredLetter(entry_id.decode(), letter)
