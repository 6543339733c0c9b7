"""`make bench` runs to its end; what it measures is not judged here."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(240)


async def test_the_benchmarks_print_their_tables() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks", "--quick"),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(200):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    text = out.decode()
    for words in ("CPU µs per token", "to the first token", "open streams", "requests/s", "Archive (sqlite)"):
        assert words in text
