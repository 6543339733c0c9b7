"""`make conformance`: clients and suites that others wrote, against a stack of real processes; one table."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.conformance.commands import Missing
from tests.conformance.report import Case, Counts, Result, has_failed, report
from tests.conformance.stack import Target, real_model_is_here, serving
from tests.conformance.suites.javascript import run_javascript
from tests.conformance.suites.langchain import run_langchain
from tests.conformance.suites.llm_comply import run_llm_comply
from tests.conformance.suites.python import run_python
from tests.conformance.suites.schemathesis import run_schemathesis

Suite = Callable[[Target], Awaitable[list[Result]]]
SUITES: dict[str, Suite] = {
    "llm-comply": run_llm_comply,
    "langchain": run_langchain,
    "javascript": run_javascript,
    "python": run_python,
    "schemathesis": run_schemathesis,
}


async def main(names: list[str]) -> int:
    """The exit code."""
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        async with serving(Path(folder), has_real=real_model_is_here()) as target:
            for name in names:
                print(f"{name} …", file=sys.stderr, flush=True)
                results += await _results(name, target)
    print(report(results))
    return 1 if has_failed(results) else 0


async def _results(name: str, target: Target) -> list[Result]:
    """Of one suite, or why there are none."""
    try:
        return await SUITES[name](target)
    except Missing as missing:
        return [missing_result(name, str(missing))]
    except TimeoutError:
        return [Result(suite=name, version="", counts=Counts(failed=[Case(name, "it did not end in time")]))]


def missing_result(name: str, reason: str) -> Result:
    """Skipped where a person runs it; in CI a failure."""
    case = [Case("everything", reason)]
    is_ci = os.environ.get("CI") == "true"
    return Result(suite=name, version="", counts=Counts(failed=case) if is_ci else Counts(skipped=case))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="make conformance", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}; all of them if none")
    chosen = parser.parse_args().suites or list(SUITES)
    if unknown := set(chosen) - SUITES.keys():
        parser.error(f"there is no suite {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    sys.exit(asyncio.run(main(chosen)))
