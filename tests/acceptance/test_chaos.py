"""The chaos suite finds nothing in OpenChat, and does find it where a safeguard is switched off."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(240)

QUICK = {"DRAIN_GRACE_S": "1", "SYNTHETIC_TOKENS_PER_SECOND": "80"}
"""Streams of up to five seconds, of which a drain hands the rest over."""
ROOT = Path(__file__).parents[2]


async def run_chaos(folder: Path, *arguments: str, lease_ms: int) -> tuple[int, dict[str, Any], str]:
    """Exit code, the JSON report of the one run, and everything that was printed."""
    report = folder / "report.json"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.chaos", "--no-sentinel", "--json", str(report)),
        *("--keep", str(folder), *arguments),
        cwd=ROOT,
        env=os.environ | {f"OPENCHAT_{name}": value for name, value in {**QUICK, "LEASE_MS": str(lease_ms)}.items()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(200):
            output, _ = await process.communicate()
    except BaseException:
        process.terminate()
        await process.wait()
        raise
    assert report.exists(), output.decode()
    (found,) = json.loads(report.read_text()).values()
    assert process.returncode is not None
    return process.returncode, found, output.decode()


def counted(report: dict[str, Any]) -> dict[tuple[str, str], int]:
    return {(fault["action"], fault["target"]): fault["counted"] for fault in report["faults"]}


async def test_a_short_run_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    code, report, output = await run_chaos(tmp_path, "--minutes", "0.4", "--streams", "24", lease_ms=1500)
    assert code == 0, output
    assert report["failures"] == [], output
    assert all(counted(report)["SIGKILL", target] >= 2 for target in ("worker", "gateway", "archiver", "broker"))
    assert counted(report)["SIGSTOP over the lease, SIGCONT", "worker"] >= 1
    assert report["checked"] >= 50
    assert report["counts"]["reconnects"] > 0
    assert report["recovery_s"]["worker"]["streams"] > 0


async def test_without_takeover_the_suite_fails_and_names_what_was_lost(tmp_path: Path) -> None:
    sabotage = ("--sabotage", "takeover", "--streams", "12", "--patience", "10")
    code, report, output = await run_chaos(tmp_path, *sabotage, lease_ms=1000)
    assert code == 1, output
    assert report["fates"]["lost"] > 0, output
    assert any(line.startswith("lost: resp_") for line in report["problems"]), output


async def test_without_fences_the_suite_fails_and_names_what_diverged(tmp_path: Path) -> None:
    sabotage = ("--sabotage", "fences", "--streams", "24", "--patience", "20")
    code, report, output = await run_chaos(tmp_path, *sabotage, lease_ms=1000)
    assert code == 1, output
    assert report["fates"]["diverged"] + report["fates"]["duplicated"] > 0, output
    assert any("resp_" in line for line in report["problems"]), output
