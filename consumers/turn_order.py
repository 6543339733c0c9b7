"""The turns of a conversation are archived in their order, whatever the order of `oc:finished`.

A worker may die between the end of a response and telling so; then the next turn of the conversation is told first.
The archiver takes the turns before it along: their logs have ended, or the next one would not have been accepted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from schemas.archived import ArchivedResponse
from schemas.ids import ResponseId, conversation_from_bytes
from streams.turns import ConversationTurns

Load = Callable[[ResponseId], Awaitable[object]]
"""The row of a response, or an error where it has none."""


class TurnOrder:
    """Orders the batches of one archiver. Everything raises BrokerError."""

    def __init__(self, turns: ConversationTurns, load: Load) -> None:
        self._turns = turns
        self._load = load

    async def in_order(self, batch: Sequence[ArchivedResponse]) -> list[ArchivedResponse]:
        """The batch, and before each turn those that come before it in its conversation."""
        rows = {row.id: row for row in batch}
        ordered: dict[ResponseId, ArchivedResponse] = {}
        for row in batch:
            for earlier in await self._earlier(row):
                found = rows.get(earlier) or await self._load(earlier)
                if isinstance(found, ArchivedResponse):
                    ordered.setdefault(earlier, found)
            ordered.setdefault(row.id, row)
        return list(ordered.values())

    async def _earlier(self, row: ArchivedResponse) -> list[ResponseId]:
        if row.conversation is None:
            return []
        waiting = await self._turns.waiting(conversation_from_bytes(row.conversation))
        return waiting[: waiting.index(row.id)] if row.id in waiting else []

    async def leave(self, archived: Sequence[ArchivedResponse]) -> None:
        """After the commit; what is not done of it costs a reader a look."""
        for row in archived:
            if row.conversation is not None:
                await self._turns.leave(conversation_from_bytes(row.conversation), row.id)
