"""Tables. Written for SQLite and MySQL; ids are 16 time-ordered bytes, times are UTC.

A response is one row, and its complete event log one compressed blob beside it: a row
for each token would cost more than the token.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
)
from sqlalchemy.dialects import mysql

HEAD = "0001"
"""Newest revision of `migrations/`; lets a start skip Alembic where nothing is to do."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}
# SQLite would give a column of type BINARY numeric affinity
_ID = LargeBinary(16).with_variant(mysql.BINARY(16), "mysql", "mariadb")
_TIME = DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
_BLOB = LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")

responses = Table(
    "responses",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("format", String(16), nullable=False),
    Column("model", String(200), nullable=False),
    Column("status", String(16), nullable=False),
    Column("accepted_at", _TIME, nullable=False),
    Column("first_text_ms", Integer),
    Column("duration_ms", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("input_tokens", Integer, nullable=False),
    Column("output_tokens", Integer, nullable=False),
    Column("cached_tokens", Integer, nullable=False),
    Column("error_code", String(64)),
    Index(None, "tenant", "id"),
    **_MYSQL,
)

response_logs = Table(
    "response_logs",
    metadata,
    Column("response_id", _ID, ForeignKey("responses.id", ondelete="CASCADE"), primary_key=True),
    Column("codec", SmallInteger, nullable=False),
    Column("entries", _BLOB, nullable=False),
    **_MYSQL,
)
