"""One error map for everything that talks to the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from schemas.errors import ArchiveError


@contextmanager
def map_sql_errors() -> Iterator[None]:
    """Turn the errors of SQLAlchemy, the drivers and the network, and timeouts, into ArchiveError."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError) as exc:
        # the driver's own words: SQLAlchemy's message would repeat the whole statement
        cause = str(getattr(exc, "orig", None) or exc) or type(exc).__name__
        raise ArchiveError(f"the archive is away or refused: {cause}") from exc
