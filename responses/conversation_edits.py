"""Changing a conversation by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

from formats.items import named_items
from responses.conversations import ConversationReader
from responses.resolve import messages_of
from responses.turns import stored_item
from schemas.bodies import InputItem
from schemas.conversations import Conversation, StoredItem
from schemas.errors import ConversationLocked, ConversationNotFound, ItemNotFound
from schemas.ids import ConversationId, new_conversation_id, new_item_id
from streams.turns import ConversationTurns

_SETTLE_S = 5.0
"""Longest wait for the archiver."""
_LOOK_EVERY_S = 0.05


class EditableConversations(Protocol):
    """What changing needs of the archive's conversations."""

    async def create(self, conversation: Conversation, items: Sequence[StoredItem]) -> None: ...

    async def update_metadata(self, tenant: str, conversation: ConversationId, metadata: dict[str, str]) -> bool: ...

    async def delete(self, tenant: str, conversation: ConversationId) -> bool: ...

    async def add_items(self, tenant: str, conversation: ConversationId, items: Sequence[StoredItem]) -> None: ...

    async def delete_item(self, conversation: ConversationId, item_id: str) -> bool: ...


class ConversationEditor:
    """Changes conversations of one deployment. Everything raises BrokerError and ArchiveError."""

    def __init__(
        self, reader: ConversationReader, conversations: EditableConversations, turns: ConversationTurns
    ) -> None:
        self._reader = reader
        self._conversations = conversations
        self._turns = turns

    async def create(self, tenant: str, items: Sequence[InputItem], metadata: dict[str, str]) -> Conversation:
        """Raises InvalidRequest for an item that can not be read."""
        now_ms = time.time_ns() // 1_000_000
        conversation = Conversation(
            id=new_conversation_id(), tenant=tenant, created_at_ms=now_ms, updated_at_ms=now_ms, metadata=metadata
        )
        await self._conversations.create(conversation, _new_items(items))
        return conversation

    async def update(self, tenant: str, conversation: ConversationId, metadata: dict[str, str]) -> Conversation:
        """Put other metadata in place of the old. Raises ConversationNotFound."""
        if not await self._conversations.update_metadata(tenant, conversation, metadata):
            raise ConversationNotFound(f"No conversation with the id {conversation}.")
        return await self._reader.find(tenant, conversation)

    async def delete(self, tenant: str, conversation: ConversationId) -> None:
        """With its items; its responses stay, and one that is running adds nothing. Raises ConversationNotFound."""
        if not await self._conversations.delete(tenant, conversation):
            raise ConversationNotFound(f"No conversation with the id {conversation}.")
        await self._turns.forget(conversation)

    async def add_items(
        self, tenant: str, conversation: ConversationId, items: Sequence[InputItem]
    ) -> list[StoredItem]:
        """Behind those that are there. Raises InvalidRequest, ConversationNotFound, ConversationLocked."""
        new = _new_items(items)
        await self._settle(tenant, conversation)
        await self._conversations.add_items(tenant, conversation, new)
        return new

    async def delete_item(self, tenant: str, conversation: ConversationId, item_id: str) -> Conversation:
        """Raises ConversationNotFound, ItemNotFound, ConversationLocked."""
        await self._settle(tenant, conversation)
        if not await self._conversations.delete_item(conversation, item_id):
            raise ItemNotFound(f"The conversation has no item {item_id[:100]!r}.")
        return await self._reader.find(tenant, conversation)

    async def _settle(self, tenant: str, conversation: ConversationId) -> None:
        """Wait until the archiver has written what has ended. Raises ConversationLocked where a turn has not."""
        await self._reader.find(tenant, conversation)
        deadline = time.monotonic() + _SETTLE_S
        while True:
            waiting = await self._reader.waiting(conversation)
            if waiting.running is not None:
                raise ConversationLocked
            if not waiting.items:
                return
            if time.monotonic() >= deadline:
                raise ConversationLocked("The last response in this conversation is still being stored; try again.")
            await asyncio.sleep(_LOOK_EVERY_S)


def _new_items(items: Sequence[InputItem]) -> list[StoredItem]:
    """Each for itself: a call stays apart from the text before it."""
    messages = [message for i, item in enumerate(items) for message in messages_of([item], "items", i)]
    return [stored_item(item) for item in named_items(messages, lambda prefix, _: new_item_id(prefix))]
