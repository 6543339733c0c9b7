"""`oc:control`: hints for every worker, read by all of them. A lost one costs time, never truth."""

from __future__ import annotations

import contextlib

import msgspec

from schemas.decoding import UNDECODABLE
from schemas.errors import BrokerError
from schemas.ids import ResponseId
from schemas.requests import ControlEntry
from streams.clients import Client
from streams.connect import map_broker_errors
from streams.keys import CONTROL

_MAX_ENTRIES = 1000
_READ_ENTRIES = 100
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(ControlEntry).decode


class ControlStream:
    """Sender's and reader's side."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def tell_ended(self, response_id: ResponseId) -> None:
        """Tell every worker; what the broker does not take is left out: a refused write tells as well."""
        entry = {"control": _encode(ControlEntry(ended=response_id))}
        with contextlib.suppress(BrokerError), map_broker_errors():
            await self._client.xadd(CONTROL, entry, maxlen=_MAX_ENTRIES, approximate=True)

    async def end(self) -> str:
        """The present last id, where a reader begins."""
        with map_broker_errors():
            last = await self._client.xrevrange(CONTROL, count=1)
        return last[0][0].decode() if last else "0-0"

    async def read(self, position: str, *, client: Client, block_ms: int) -> tuple[str, list[ControlEntry]]:
        """The next entries and the new position; none after `block_ms`. Raises BrokerError."""
        with map_broker_errors():
            reply = await client.xread({CONTROL: position}, count=_READ_ENTRIES, block=block_ms)
        if not reply:
            return position, []
        rows = reply[0][1]
        found = []
        for _, fields in rows:
            with contextlib.suppress(KeyError, *UNDECODABLE):
                found.append(_decode(fields[b"control"]))
        return rows[-1][0].decode(), found
