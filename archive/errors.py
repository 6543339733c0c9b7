"""One error map for everything that talks to the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from schemas.errors import ArchiveError


@contextmanager
def map_sql_errors() -> Iterator[None]:
    """Turn SQLAlchemy's and the drivers' errors into ArchiveError."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError) as exc:
        cause = getattr(exc, "orig", None) or exc
        raise ArchiveError(f"the archive is away or refused: {cause}") from exc
