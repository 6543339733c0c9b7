"""The turns of a conversation that are not in the archive yet, in their order.

One list for each conversation. The last turn stays in it for a while after it was archived: whoever
has read the history says which turn was the last, and joins only where it still is.
"""

from __future__ import annotations

from schemas.ids import ConversationId, ResponseId
from streams.clients import Client
from streams.connect import Script, map_broker_errors
from streams.keys import conversation_key

_TTL_S = 7 * 86_400
"""Far longer than an archiver is away; only what was lost is left to it."""
_ARCHIVED_TTL_S = 3_600
"""Longer than it takes from reading a history to joining."""
_MAX_WAITING = 100


class ConversationTurns:
    """The turns of all conversations of one broker."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._join = Script("turn_join")
        self._leave = Script("turn_leave")

    async def waiting(self, conversation: ConversationId) -> list[ResponseId]:
        """Not archived, or not long ago; the oldest first. Raises BrokerError."""
        with map_broker_errors():
            found = await self._client.lrange(conversation_key(conversation), 0, -1)
        return [ResponseId(raw.decode()) for raw in found]

    async def join(self, conversation: ConversationId, response_id: ResponseId, *, seen: ResponseId | None) -> bool:
        """Add a turn behind `seen`; False where another is there. May be repeated. Raises BrokerError."""
        args = [response_id, seen or "", _TTL_S, _MAX_WAITING]
        return bool(await self._join.run(self._client, [conversation_key(conversation)], args))

    async def leave(self, conversation: ConversationId, response_id: ResponseId) -> None:
        """It is archived, and so are those before it; may be repeated. Raises BrokerError."""
        await self._leave.run(self._client, [conversation_key(conversation)], [response_id, _ARCHIVED_TTL_S])

    async def forget(self, conversation: ConversationId) -> None:
        """The conversation was deleted. Raises BrokerError."""
        with map_broker_errors():
            await self._client.unlink(conversation_key(conversation))
