"""What runs in the default environment: our tests with the official Python client, and the scripted engine's own."""

from __future__ import annotations

import importlib.metadata
import sys
import tempfile
from pathlib import Path

from tests.conformance.commands import ROOT, junit_counts, run
from tests.conformance.report import Counts, Result
from tests.conformance.stack import Target

CLIENT = "tests/acceptance/test_openai_client.py"
CONTRACT = "tests/engines/test_contract.py"
ABILITIES = "tests/engines/test_abilities.py"


async def run_python(target: Target) -> list[Result]:
    """They start what they need themselves; the engine is tested because the other suites are only worth what it is."""
    client = f"openai {importlib.metadata.version('openai')}"
    own = f"openchat {importlib.metadata.version('openchat')}"
    engine = {
        "OPENCHAT_TEST_ENGINE": "scripted",
        "OPENCHAT_TEST_MODEL": "tiny-scripted",
        "PYTHONPATH": target.python_path,
    }
    # not what it would refuse: it declares nearly everything, and no bias of tokens
    contract = await _counts(CONTRACT, ABILITIES, "-k", "not does_not_declare and not a_bias", environ=engine)
    return [
        Result(suite="openai for Python", version=client, counts=await _counts(CLIENT)),
        Result(suite="our contract of engines, scripted engine", version=own, counts=contract),
    ]


async def _counts(*arguments: str, environ: dict[str, str] | None = None) -> Counts:
    with tempfile.TemporaryDirectory() as scratch:
        found = Path(scratch) / "junit.xml"
        options = ("--quiet", "-p", "no:cacheprovider", f"--junit-xml={found}")
        output = await run(sys.executable, "-m", "pytest", *options, *arguments, environ=environ or {}, cwd=ROOT)
        return junit_counts(found, output)
