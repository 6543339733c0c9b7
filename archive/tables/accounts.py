"""Who may ask: tenants, their API keys, and what was done to them."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Integer, String, Table, Text

from archive.tables.columns import ID, MYSQL, TIME, binary, metadata

tenants = Table(
    "tenants",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("created_at", TIME, nullable=False),
    # JSON, an object of strings
    Column("metadata", Text, nullable=False),
    # days that responses are kept after their end; null: as the setting says
    Column("retention_days", Integer),
    # JSON; null: as the settings say
    Column("limits", Text),
    Column("disabled_at", TIME),
    **MYSQL,
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", ID, primary_key=True),
    Column("tenant", String(64), ForeignKey("tenants.name"), nullable=False),
    Column("name", String(200), nullable=False),
    # SHA-256; the key itself is nowhere
    Column("hash", binary(32), nullable=False, unique=True),
    # its first characters, for people
    Column("prefix", String(16), nullable=False),
    # separated by spaces
    Column("scopes", String(200), nullable=False),
    # JSON; null: those of the tenant
    Column("limits", Text),
    Column("created_at", TIME, nullable=False),
    Column("expires_at", TIME),
    Column("last_used_at", TIME),
    Column("revoked_at", TIME),
    # the key that took its place
    Column("rotated_to", ID),
    Index(None, "tenant", "id"),
    **MYSQL,
)

audit = Table(
    "audit",
    metadata,
    Column("id", ID, primary_key=True),
    Column("at", TIME, nullable=False),
    # who did it: an admin key, the command line, a sweep
    Column("actor", String(100), nullable=False),
    Column("action", String(64), nullable=False),
    Column("tenant", String(64)),
    # what it was done to
    Column("subject", String(200), nullable=False),
    # JSON, an object
    Column("detail", Text, nullable=False),
    Index(None, "tenant", "id"),
    Index(None, "at"),
    **MYSQL,
)
"""What was done to keys and by administrators; rows are only added."""
