"""LangChain's integration suite of chat models."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.conformance.commands import HERE, junit_counts, python, run, version, where
from tests.conformance.report import Counts, Result
from tests.conformance.stack import Target

CLASSES = {"TestChatCompletions": "chat completions", "TestResponses": "Responses"}


async def run_langchain(target: Target) -> list[Result]:
    """Once over each of our two APIs."""
    name = f"langchain-tests {await version('langchain-tests')}, langchain-openai {await version('langchain-openai')}"
    return [
        Result(suite=f"ChatOpenAI, {shown}", version=name, counts=await _counts(target, test))
        for test, shown in CLASSES.items()
    ]


async def _counts(target: Target, test: str) -> Counts:
    folder = HERE / "langchain"
    with tempfile.TemporaryDirectory() as scratch:
        found = Path(scratch) / "junit.xml"
        command = (python(), "-m", "pytest", "-c", folder / "pytest.ini", f"--junit-xml={found}", "--quiet")
        output = await run(*command, f"{folder / 'chat_models.py'}::{test}", environ=where(target))
        return junit_counts(found, output)
