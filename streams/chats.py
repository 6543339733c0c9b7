"""Which response is the newest of a chat that a client has named: so that it is found again by that name."""

from __future__ import annotations

from schemas.ids import ResponseId, parse_response_id
from streams.clients import Client
from streams.connect import map_broker_errors
from streams.keys import chat_key


class Chats:
    """The chats of all tenants of one broker. Nothing is kept but the id of a response."""

    def __init__(self, client: Client, *, ttl_s: int) -> None:
        """`ttl_s`: longer than a response can run."""
        self._client = client
        self._ttl_s = ttl_s

    async def point(self, tenant: str, chat: str, response_id: ResponseId) -> None:
        """From now on this is the newest; of two at once the later one is. May be repeated. Raises BrokerError."""
        with map_broker_errors():
            await self._client.set(chat_key(tenant, chat), response_id, ex=self._ttl_s)

    async def newest(self, tenant: str, chat: str) -> ResponseId | None:
        """None where there was none for the time to live. Raises BrokerError."""
        with map_broker_errors():
            found = await self._client.get(chat_key(tenant, chat))
        return parse_response_id(found.decode()) if found is not None else None
