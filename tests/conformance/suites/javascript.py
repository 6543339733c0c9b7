"""The Vercel AI SDK and the official openai client, under Node."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from tests.conformance.commands import HERE, Missing, junit_counts, run, where
from tests.conformance.report import Counts, Result
from tests.conformance.stack import Target

FOLDER = HERE / "node"
FILES = {
    "ai_7.test.mjs": ("Vercel AI SDK", {"ai": "ai"}),
    "ai_6.test.mjs": ("Vercel AI SDK", {"ai": "ai-6"}),
    "ui_7.test.mjs": ("Vercel AI SDK, chats", {"ai": "ai"}),
    "ui_6.test.mjs": ("Vercel AI SDK, chats", {"ai": "ai-6"}),
    "openai_7.test.mjs": ("openai for JavaScript", {"openai": "openai"}),
    "openai_6.test.mjs": ("openai for JavaScript", {"openai": "openai-6"}),
}
"""Test file → what it tests, and the package by its name and by its folder."""


async def run_javascript(target: Target) -> list[Result]:
    """Raises Missing where Node or its packages are not here."""
    if shutil.which("node") is None:
        raise Missing("Node is not installed (version 20 or newer, with npm)")
    if not (FOLDER / "node_modules").is_dir():
        raise Missing("`make install-conformance` has not been run, or found no npm")
    node = (await run("node", "--version", environ={})).text.strip().removeprefix("v")
    return [
        Result(suite=suite, version=f"{_versions(packages)}, Node {node}", counts=await _counts(target, file))
        for file, (suite, packages) in FILES.items()
    ]


def _versions(packages: dict[str, str]) -> str:
    return ", ".join(
        f"{name} {json.loads((FOLDER / 'node_modules' / folder / 'package.json').read_text())['version']}"
        for name, folder in packages.items()
    )


async def _counts(target: Target, file: str) -> Counts:
    with tempfile.TemporaryDirectory() as scratch:
        found = Path(scratch) / "junit.xml"
        reporter = ("--test-reporter=junit", f"--test-reporter-destination={found}")
        output = await run("node", "--test", *reporter, file, environ=where(target), cwd=FOLDER)
        return junit_counts(found, output)
