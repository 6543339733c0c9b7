"""`openchat migrate --create`: the database, its newest schema, and a user that may do no more than it must."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection

from archive.connect import create_engine, parse_url
from archive.errors import map_sql_errors
from archive.migrate import migrate
from archive.reach import until_answers
from schemas.errors import SettingsError

_NAME = re.compile(r"[A-Za-z0-9_$-]{1,64}")
_SYSTEM = "information_schema"
"""Every server has it: a place to connect to before there is ours."""
_RIGHTS = "SELECT, INSERT, UPDATE, DELETE"
"""What serving needs. Only migrations change tables, and they run as the administrator."""


async def create(url: str, admin_url: str, progress: Callable[[str], None], *, wait_s: float) -> None:
    """Make what `url` names and bring it to the newest schema; may be repeated.

    `admin_url` may create databases and users; its own database is not looked at. Raises SettingsError, ArchiveError.
    """
    target = parse_url(url)
    if target.get_backend_name() == "sqlite":
        Path(str(target.database)).parent.mkdir(parents=True, exist_ok=True)
        await migrate(url, progress)
        return
    admin = _admin(admin_url, target)
    await _create_database(admin, target, progress, wait_s)
    await migrate(admin.set(database=target.database).render_as_string(hide_password=False), progress)


def _admin(admin_url: str, target: URL) -> URL:
    if not admin_url:
        raise SettingsError("--create needs OPENCHAT_DATABASE_ADMIN_URL: an administrator, mysql+asyncmy://root:…@host")
    if not target.username or not target.password:
        raise SettingsError("OPENCHAT_DATABASE_URL names no user and password to create")
    if not _NAME.fullmatch(str(target.database)):
        raise SettingsError("OPENCHAT_DATABASE_URL: use letters, digits, '_', '$' and '-' in the database's name")
    admin = parse_url(admin_url, name="OPENCHAT_DATABASE_ADMIN_URL", default_database=_SYSTEM).set(database=_SYSTEM)
    if admin.username == target.username:
        raise SettingsError("OPENCHAT_DATABASE_URL and OPENCHAT_DATABASE_ADMIN_URL name the same user")
    return admin


async def _create_database(admin: URL, target: URL, progress: Callable[[str], None], wait_s: float) -> None:
    engine = create_engine(admin.render_as_string(hide_password=False))
    try:
        await until_answers(engine, wait_s, progress)
        with map_sql_errors():
            async with engine.connect() as connection:
                await _run_statements(connection, target)
    finally:
        await engine.dispose()
    progress(f"database {target.database} and user {target.username} are there")


async def _run_statements(connection: AsyncConnection, target: URL) -> None:
    user, password = target.username, str(target.password)
    # in GRANT the name is a pattern: an underscore alone would open other databases
    pattern = str(target.database).replace("_", r"\_")
    await connection.exec_driver_sql(
        f"CREATE DATABASE IF NOT EXISTS `{target.database}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    )
    await connection.exec_driver_sql("CREATE USER IF NOT EXISTS %s@'%%' IDENTIFIED BY %s", (user, password))
    await connection.exec_driver_sql("ALTER USER %s@'%%' IDENTIFIED BY %s", (user, password))
    await connection.exec_driver_sql(f"GRANT {_RIGHTS} ON `{pattern}`.* TO %s@'%%'", (user,))
