"""Reading a conversation: its stored items, and behind them the turns that the archiver has not written yet.

The items of a response are written by the archiver in the transaction of its row. Until then they are read from
its log; `streams.turns` knows which logs. The list of turns is read first and the items last, so what is archived
in between is found as items.
"""

from __future__ import annotations

import time
from typing import Protocol

import msgspec

from formats.transcript import transcript_of
from responses.turns import turn_of
from schemas.conversations import Conversation, ConversationQuery, Page, StoredItem
from schemas.errors import ConversationLocked, ConversationNotFound, ItemNotFound, LogGone
from schemas.ids import ConversationId, ResponseId, made_at_ms
from streams.logs import ResponseLogs
from streams.turns import ConversationTurns

_YOUNG_MS = 30_000
"""A younger response without a log is just being accepted; an older one was lost."""


class ConversationArchive(Protocol):
    """What reading conversations needs of the archive's conversations."""

    async def find(self, tenant: str, conversation: ConversationId) -> Conversation | None: ...

    async def find_all(self, tenant: str, query: ConversationQuery, page: Page) -> list[Conversation]: ...

    async def items(
        self, conversation: ConversationId, *, limit: int, after: int | None = None, is_descending: bool = False
    ) -> list[StoredItem]: ...

    async def item(self, conversation: ConversationId, item_id: str) -> StoredItem | None: ...


class RowArchive(Protocol):
    """What it needs of the archive's responses."""

    async def exists(self, response_id: ResponseId) -> bool: ...


class Waiting(msgspec.Struct, frozen=True):
    """The turns that are not archived."""

    items: list[StoredItem]
    """Of those that have ended and add something, in order."""
    running: ResponseId | None
    """The one that has not ended."""
    seen: ResponseId | None
    """The last turn of all, archived or not."""


class ConversationReader:
    """Reads conversations of one deployment. Everything raises BrokerError and ArchiveError."""

    def __init__(
        self, logs: ResponseLogs, rows: RowArchive, conversations: ConversationArchive, turns: ConversationTurns
    ) -> None:
        self._logs = logs
        self._rows = rows
        self._conversations = conversations
        self._turns = turns

    async def find(self, tenant: str, conversation: ConversationId) -> Conversation:
        """Raises ConversationNotFound, for another tenant's too."""
        found = await self._conversations.find(tenant, conversation)
        if found is None:
            raise ConversationNotFound(f"No conversation with the id {conversation}.", param="conversation")
        return found

    async def find_all(self, tenant: str, query: ConversationQuery, page: Page) -> list[Conversation]:
        """Those of a tenant."""
        return await self._conversations.find_all(tenant, query, page)

    async def waiting(self, conversation: ConversationId, before: ResponseId | None = None) -> Waiting:
        """The turns that are not archived, up to `before`; before the items are read."""
        turns = await self._turns.waiting(conversation)
        items: list[StoredItem] = []
        if before is not None and before not in turns and await self._rows.exists(before):
            return Waiting(items, None, turns[-1] if turns else None)  # archived, and so are those before it
        for turn in turns:
            if turn == before:
                break
            if await self._rows.exists(turn):
                continue
            found = await self._waiting_items(turn)
            if found is None:
                return Waiting(items, turn, turns[-1])
            items += found
        return Waiting(items, None, turns[-1] if turns else None)

    async def _waiting_items(self, response_id: ResponseId) -> list[StoredItem] | None:
        """None where it has not ended."""
        try:
            entries = await self._logs.read(response_id)
        except LogGone:
            is_young = made_at_ms(response_id) + _YOUNG_MS > time.time_ns() // 1_000_000
            return None if is_young else []
        transcript = transcript_of(entries)
        if transcript.terminal is None:
            return None
        turn = turn_of(transcript)
        return turn.items if turn is not None else []

    async def history(
        self, tenant: str, conversation: ConversationId, limit: int, before: ResponseId | None = None
    ) -> tuple[list[StoredItem], ResponseId | None]:
        """The first `limit` items up to those of the turn `before`, and the last turn that was seen.

        Raises ConversationNotFound, ConversationLocked.
        """
        await self.find(tenant, conversation)
        waiting = await self.waiting(conversation, before)
        if waiting.running is not None:
            raise ConversationLocked
        items = await self._conversations.items(conversation, limit=limit)
        place = _place_of(items, before) if before is not None else None
        if place is not None:
            return items[:place], waiting.seen
        return _joined(items, waiting.items)[:limit], waiting.seen

    async def page(self, tenant: str, conversation: ConversationId, page: Page) -> list[StoredItem]:
        """Raises ConversationNotFound, and ItemNotFound for an `after` that is not there."""
        await self.find(tenant, conversation)
        waiting = (await self.waiting(conversation)).items
        ids = [item.id for item in waiting]
        position: int | None = None
        if page.after in ids:
            place = ids.index(page.after)
            waiting = waiting[:place] if page.is_descending else waiting[place + 1 :]
            if not page.is_descending:
                return waiting[: page.limit]
        elif page.after:
            position = (await self._item(conversation, page.after)).position
            waiting = [] if page.is_descending else waiting
        items = await self._conversations.items(
            conversation, limit=page.limit, after=position, is_descending=page.is_descending
        )
        if page.is_descending:
            return _joined(waiting[::-1], items)[: page.limit]
        return _joined(items, waiting)[: page.limit] if len(items) < page.limit else items

    async def item(self, tenant: str, conversation: ConversationId, item_id: str) -> StoredItem:
        """Raises ConversationNotFound, ItemNotFound."""
        await self.find(tenant, conversation)
        for item in (await self.waiting(conversation)).items:
            if item.id == item_id:
                return item
        return await self._item(conversation, item_id)

    async def _item(self, conversation: ConversationId, item_id: str) -> StoredItem:
        found = await self._conversations.item(conversation, item_id)
        if found is None:
            raise ItemNotFound(f"The conversation has no item {item_id[:100]!r}.")
        return found


def _place_of(items: list[StoredItem], response_id: ResponseId) -> int | None:
    """Where the items of a turn begin, or, if it added none, those of the turns accepted later; None: at the end."""
    own = (i for i, item in enumerate(items) if item.response_id == response_id)
    later = (i for i, item in enumerate(items) if item.response_id is not None and item.response_id > response_id)
    return next(own, next(later, None))


def _joined(first: list[StoredItem], rest: list[StoredItem]) -> list[StoredItem]:
    """What was archived between the two looks is in both."""
    known = {item.id for item in first}
    return first + [item for item in rest if item.id not in known]
