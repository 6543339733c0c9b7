"""Conversations and their items, as the archive keeps them."""

from __future__ import annotations

import msgspec

from schemas.ids import ConversationId, ResponseId


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation without its items."""

    id: ConversationId
    tenant: str
    created_at_ms: int
    """Unix time."""
    updated_at_ms: int
    """When the last item came, or its metadata was changed."""
    metadata: dict[str, str]


class StoredItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item as the API shows it."""

    id: str
    kind: str
    """The `type` that the API gives it."""
    body: bytes
    """The JSON object, `id` and `type` included."""
    response_id: ResponseId | None = None
    """The response that it is the input or the output of; None: it was put in by hand."""
    position: int = -1
    """In its conversation, growing; a deleted item leaves a hole. -1: not stored yet."""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What a response adds to its conversation."""

    conversation: ConversationId
    items: list[StoredItem]


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a list."""

    limit: int
    after: str = ""
    """Id of the last one that was seen; empty: from the start."""
    is_descending: bool = True


class ConversationQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which conversations; bounds that are None do not count."""

    created_from_ms: int | None = None
    created_before_ms: int | None = None
    title: str = ""
    """A part of the metadata's `title`, upper and lower case alike."""
