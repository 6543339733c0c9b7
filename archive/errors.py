"""One error map for everything that talks to the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from schemas.errors import ArchiveError

_NO_DDL = (1142, 1370)
"""MySQL's error numbers for a statement that the user may not run."""


@contextmanager
def map_sql_errors() -> Iterator[None]:
    """Turn the errors of SQLAlchemy, the drivers and the network, and timeouts, into ArchiveError."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError) as exc:
        # the driver's own words: SQLAlchemy's message would repeat the whole statement
        orig = getattr(exc, "orig", None)
        cause = str(orig or exc) or type(exc).__name__
        if orig is not None and orig.args and orig.args[0] in _NO_DDL:
            cause += "; only an administrator may migrate: run `openchat migrate --create`"
        raise ArchiveError(f"the archive is away or refused: {cause}") from exc
