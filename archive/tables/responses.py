"""Responses, one row each, their complete event logs as one compressed blob beside it, their metadata, what they used.

A row for each token would cost more than the token.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, SmallInteger, String, Table, Text, text

from archive.tables.columns import BLOB, ID, MYSQL, TIME, binary, metadata

NO_KEY = bytes(16)
"""In `usage_hours`: it was asked for without a managed key."""

responses = Table(
    "responses",
    metadata,
    Column("id", ID, primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("format", String(16), nullable=False),
    Column("model", String(200), nullable=False),
    Column("status", String(16), nullable=False),
    Column("accepted_at", TIME, nullable=False),
    Column("first_text_ms", Integer),
    Column("duration_ms", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("input_tokens", Integer, nullable=False),
    Column("output_tokens", Integer, nullable=False),
    Column("cached_tokens", Integer, nullable=False),
    Column("error_code", String(64)),
    # the engine that began it; empty: none did, or an older version
    Column("engine", String(64), nullable=False, server_default=text("''")),
    # as chat completions name it; null: it failed or was cancelled
    Column("finish_reason", String(32)),
    Column("reasoning_tokens", Integer, nullable=False, server_default=text("0")),
    # millionths of the currency of the price list; null: the model has no prices
    Column("cost_micros", BigInteger),
    Column("error_message", String(500)),
    # the response that it goes on from (`previous_response_id`)
    Column("parent", ID),
    Column("retry_of", ID),
    Column("conversation", ID),
    # of the managed API key that asked; null: another kind, or none
    Column("key_id", ID),
    Column("lane", String(16), nullable=False, server_default="interactive"),
    Column("is_stored", Boolean, nullable=False, server_default=text("1")),
    Column("ended_at", TIME, nullable=False),
    # random, one for each transaction that writes rows: tells which of two archivers wrote this one
    Column("write_id", binary(8)),
    # as it is now, which its log does not say: it can be changed; null: none, or an older version wrote the row
    Column("metadata", Text),
    Index(None, "tenant", "id"),
    Index(None, "tenant", "format", "id"),
    Index(None, "tenant", "format", "model", "id"),
    Index(None, "conversation", "id"),
    Index(None, "parent"),
    Index(None, "tenant", "ended_at"),
    **MYSQL,
)

response_logs = Table(
    "response_logs",
    metadata,
    Column("response_id", ID, ForeignKey("responses.id", ondelete="CASCADE"), primary_key=True),
    Column("codec", SmallInteger, nullable=False),
    Column("entries", BLOB, nullable=False),
    **MYSQL,
)

response_metadata = Table(
    "response_metadata",
    metadata,
    Column("tenant", String(64), primary_key=True),
    # SHA-256 of name and value: they are too long for an index, and must match to the byte
    Column("pair", binary(32), primary_key=True),
    Column("response_id", ID, ForeignKey("responses.id", ondelete="CASCADE"), primary_key=True),
    Index(None, "response_id"),
    **MYSQL,
)
"""Finds chat completions by what is in their metadata, a row for each name and value."""

usage_hours = Table(
    "usage_hours",
    metadata,
    Column("tenant", String(64), primary_key=True),
    # in which the responses ended
    Column("hour", TIME, primary_key=True),
    Column("model", String(200), primary_key=True),
    Column("key_id", ID, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("cost_micros", BigInteger, nullable=False),
    Index(None, "hour"),
    **MYSQL,
)
"""Sums over the responses of an hour; written in the transaction that writes their rows."""
