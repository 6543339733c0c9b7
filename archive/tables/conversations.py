"""Conversations and their items, each stored once."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, String, Table, Text, UniqueConstraint

from archive.tables.columns import BLOB, ID, MYSQL, TIME, metadata

conversations = Table(
    "conversations",
    metadata,
    Column("id", ID, primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("created_at", TIME, nullable=False),
    # when the last item came, or its metadata was changed
    Column("updated_at", TIME, nullable=False),
    # JSON, an object of strings; its `title` is shown in lists
    Column("metadata", Text, nullable=False),
    Index(None, "tenant", "id"),
    Index(None, "tenant", "updated_at"),
    **MYSQL,
)

conversation_items = Table(
    "conversation_items",
    metadata,
    Column("conversation", ID, ForeignKey("conversations.id", ondelete="CASCADE"), primary_key=True),
    # from 0; a deleted item leaves a hole
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    # its id as the API shows it
    Column("item", String(100), nullable=False),
    # the response that it is the input or the output of; null: it was put in by hand
    Column("response_id", ID),
    # as the API names its type
    Column("kind", String(32), nullable=False),
    # JSON
    Column("body", BLOB, nullable=False),
    Column("created_at", TIME, nullable=False),
    UniqueConstraint("conversation", "item"),
    Index(None, "response_id"),
    **MYSQL,
)
"""Keyed by place, so that reading a conversation in order reads neighbouring rows."""
