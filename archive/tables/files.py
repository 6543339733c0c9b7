"""Files that were uploaded or written, and the batches made of them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text

from archive.tables.columns import ID, MYSQL, TIME, binary, metadata

files = Table(
    "files",
    metadata,
    Column("id", ID, primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("status", String(16), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    # SHA-256 of the content
    Column("hash", binary(32)),
    # where the content is, for the store that holds it
    Column("location", String(500), nullable=False),
    Column("created_at", TIME, nullable=False),
    Column("expires_at", TIME),
    Index(None, "tenant", "id"),
    Index(None, "expires_at"),
    **MYSQL,
)

batches = Table(
    "batches",
    metadata,
    Column("id", ID, primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("key_id", ID),
    # the API that the lines are for
    Column("endpoint", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("input_file", ID, nullable=False),
    Column("output_file", ID),
    Column("error_file", ID),
    # requests
    Column("total", Integer, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    # JSON, why the file was refused
    Column("errors", Text),
    # JSON, an object of strings
    Column("metadata", Text, nullable=False),
    Column("created_at", TIME, nullable=False),
    Column("expires_at", TIME, nullable=False),
    Column("started_at", TIME),
    Column("cancelled_at", TIME),
    Column("ended_at", TIME),
    Index(None, "tenant", "id"),
    Index(None, "status", "expires_at"),
    **MYSQL,
)
