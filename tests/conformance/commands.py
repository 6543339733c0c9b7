"""Programs that the suites start, and the results that they leave."""

from __future__ import annotations

import asyncio
import os
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tests.conformance.report import Case, Counts
from tests.conformance.stack import REASONER, SCRIPTED, Target

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PYTHON = ROOT / ".venv-conformance" / "bin" / "python"
LIMIT_S = 300.0
_SHOWN_CHARACTERS = 4_000


class Missing(Exception):
    """What a suite needs is not here; says what to do."""


class Output(msgspec.Struct, frozen=True):
    """What a program printed, errors included, and how it ended."""

    text: str
    code: int


async def run(*command: str | Path, environ: Mapping[str, str], cwd: Path = ROOT, limit_s: float = LIMIT_S) -> Output:
    """Its output. Raises TimeoutError after `limit_s`; the program is then killed."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=cwd,
        env={**os.environ, **environ},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(limit_s):
            text, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Output(text.decode(errors="replace"), process.returncode)


def python() -> Path:
    """That of the suites. Raises Missing."""
    if not PYTHON.exists():
        raise Missing("`make install-conformance` has not been run")
    return PYTHON


async def version(package: str) -> str:
    """Of a package in the environment of the suites."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return (await run(python(), "-c", code, environ={})).text.strip()


def where(target: Target) -> dict[str, str]:
    """The environment in which a suite finds the stack."""
    return {
        "CONFORMANCE_BASE_URL": target.base_url,
        "CONFORMANCE_KEY": target.key,
        "CONFORMANCE_MODEL": SCRIPTED,
        "CONFORMANCE_OTHER_MODEL": REASONER,
    }


def junit_counts(path: Path, output: Output) -> Counts:
    """Of a JUnit file; where there is none, or the program failed without a failed test, that is a failure."""
    passed, failed, skipped = 0, [], []
    try:
        cases = list(ET.parse(path).iter("testcase"))
    except (OSError, ET.ParseError):
        cases = []
    for case in cases:
        name = case.get("name", "")
        bad = next((part for part in case if part.tag in ("failure", "error")), None)
        left_out = case.find("skipped")
        if bad is not None:
            failed.append(Case(name, (bad.text or bad.get("message") or "")[-_SHOWN_CHARACTERS:]))
        elif left_out is not None:
            skipped.append(Case(name, left_out.get("message", "")))
        else:
            passed += 1
    if not cases or (output.code and not failed):
        failed.append(Case("the run itself", f"exit code {output.code}\n{output.text[-_SHOWN_CHARACTERS:]}"))
    return Counts(passed=passed, failed=failed, skipped=skipped)
