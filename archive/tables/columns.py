"""What all tables share: the collection they are in, their options, and the types of columns."""

from __future__ import annotations

from typing import Any

from sqlalchemy import DateTime, LargeBinary, MetaData
from sqlalchemy.dialects import mysql

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}


def binary(length: int) -> LargeBinary:
    """So many bytes, no more and no less. SQLite would give a column of type BINARY numeric affinity."""
    return LargeBinary(length).with_variant(mysql.BINARY(length), "mysql", "mariadb")


ID = binary(16)
"""Time-ordered (UUIDv7)."""
TIME = DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
"""UTC, microseconds."""
BLOB = LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")
"""Up to 16 MiB."""
