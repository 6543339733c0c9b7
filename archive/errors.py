"""One error map for everything that talks to the database.

What it makes of an error decides what the archiver does: with ArchiveError it waits and tries again, with
RowRefused it looks for the row. So everything that is not known to be a row's fault is an ArchiveError: the
database away, overloaded, locked, read-only, full, without our tables, or not letting us in.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

from schemas.errors import ArchiveError, RowRefused

_NO_DDL = (1142, 1370)
"""MySQL's error numbers for a statement that the user may not run."""
_REFUSED = frozenset(
    {
        1048,  # null in a column that takes none
        1118,  # row too large
        1153,  # packet larger than max_allowed_packet; the server mostly hangs up instead, see Archive.insert
        1264,  # out of range
        1265,  # cut off
        1292,  # wrong value
        1300,  # no valid text
        1301,  # result larger than max_allowed_packet
        1366,  # text that the column can not hold
        1406,  # too long
        1441,  # time out of range
        1644,  # a trigger says no
        3819,  # a check constraint says no (MySQL)
        4025,  # the same (MariaDB)
    }
)
"""MySQL's error numbers that are a row's own fault. The drivers sort only some of them into DataError."""


@contextmanager
def map_sql_errors() -> Iterator[None]:
    """Turn the errors of SQLAlchemy, the drivers and the network, and timeouts, into ArchiveError or RowRefused."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError) as exc:
        # the driver's own words: SQLAlchemy's message would repeat the whole statement
        orig = getattr(exc, "orig", None)
        cause = str(orig or exc) or type(exc).__name__
        if orig is not None and orig.args and orig.args[0] in _NO_DDL:
            cause += "; only an administrator may migrate: run `openchat migrate --create`"
        if isinstance(exc, DBAPIError) and _is_rows_fault(exc):
            raise RowRefused(f"the archive refused a row: {cause}") from exc
        raise ArchiveError(f"the archive is away or refused: {cause}") from exc
    except (UnicodeError, OverflowError) as exc:  # the drivers raise them for values that no database could hold
        raise RowRefused(f"the archive can not hold a value: {exc}") from exc


def was_cut_off(error: ArchiveError) -> bool:
    """The connection was lost in the middle."""
    return isinstance(error.__cause__, DBAPIError) and error.__cause__.connection_invalidated


def _is_rows_fault(error: DBAPIError) -> bool:
    if isinstance(error, DataError | IntegrityError):
        return True
    arguments: tuple[object, ...] = getattr(error.orig, "args", ())
    return bool(arguments) and arguments[0] in _REFUSED
