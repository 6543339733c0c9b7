"""`make bench` runs to its end; what it measures is not judged here."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests import database
from tests.conftest import need

pytestmark = pytest.mark.timeout(240)


async def output_of(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(200):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_the_benchmarks_print_their_tables() -> None:
    text = await output_of("benchmarks", "--quick")
    for words in ("CPU µs per token", "to the first token", "open streams", "requests/s", "Archive (sqlite)"):
        assert words in text


async def test_the_benchmark_of_the_archive_prints_its_table() -> None:
    need(database.SERVER and database.INSTALL, "mariadb-server")
    text = await output_of("benchmarks.archive", "--responses", "50", "--runs", "1")
    assert "\n| SQLite |" in text
    assert "\n| MariaDB |" in text
