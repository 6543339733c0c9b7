"""schemathesis: whatever the OpenAPI document allows is sent, and every answer must be one that it describes."""

from __future__ import annotations

import json

import msgspec

from tests.conformance.commands import HERE, Output, python, run
from tests.conformance.report import Case, Counts, Result
from tests.conformance.stack import SCRIPTED, Target

PROGRAM = HERE / "schemathesis" / "run.py"


LIMIT_S = 1_000.0
SHOWN_CHARACTERS = 20_000


class Summary(msgspec.Struct, frozen=True):
    """The last line that the program prints."""

    passed: int
    failed: int
    skipped: int
    version: str


async def run_schemathesis(target: Target) -> list[Result]:
    """One operation counts as one test, those of administrators too."""
    keys = (target.key, "--admin-key", target.admin_key, "--model", SCRIPTED)
    output = await run(python(), PROGRAM, target.stack.url(), *keys, environ={}, limit_s=LIMIT_S)
    summary = _summary(output)
    failed = [Case(f"{summary.failed} operations", output.text[-SHOWN_CHARACTERS:])]
    skipped = [Case("an operation", "left out by the program, see its output")] * summary.skipped
    counts = Counts(passed=summary.passed, failed=failed if summary.failed or output.code else [], skipped=skipped)
    return [Result(suite="OpenAPI document", version=f"schemathesis {summary.version}", counts=counts)]


def _summary(output: Output) -> Summary:
    try:
        return msgspec.convert(json.loads(output.text.strip().splitlines()[-1]), Summary)
    except (ValueError, IndexError):
        return Summary(0, 1, 0, "")
