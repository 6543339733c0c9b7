"""llm-comply: both of our formats against the schemas of Open Responses and of OpenAI, by a third party."""

from __future__ import annotations

import json
from typing import Any

from tests.conformance.commands import python, run, version
from tests.conformance.report import Case, Counts, Result
from tests.conformance.stack import REAL, REASONER, SCRIPTED, Target

FORMATS = ("open-responses", "openai-chat")
_REASONING = "reasoning is streamed as OpenAI does it, response.reasoning_text.delta; Open Responses has another name"
BEYOND_REASONING = {
    "streaming-response": _REASONING,
    "streaming-usage": _REASONING,
}
BEYOND_THE_REAL = {
    "tool-calling": "so small a model calls no tools: refused",
    "chat-tool-calling": "so small a model calls no tools: refused",
    "image-input": "the model does not see: refused",
    "chat-image-input": "the model does not see: refused",
}


async def run_llm_comply(target: Target) -> list[Result]:
    """The scripted engine must pass everything that the tool does not leave out itself, the others what they can do."""
    models: list[tuple[str, str, dict[str, str]]] = [
        (SCRIPTED, "scripted engine", {}),
        (REASONER, "scripted engine that reasons", BEYOND_REASONING),
    ]
    models += [(REAL, REAL, BEYOND_THE_REAL)] if target.has_real else []
    name = f"llm-comply {await version('llm-comply')}"
    return [
        Result(suite=f"{format}, {shown}", version=name, counts=_counts(await _cases(target, format, model), beyond))
        for format in FORMATS
        for model, shown, beyond in models
    ]


async def _cases(target: Target, format: str, model: str) -> list[dict[str, Any]]:
    asked = ("-u", target.base_url, "-k", target.key, "-m", model, "--format", format, "--json")
    output = await run(python().parent / "llm-comply", *asked, environ={})
    try:
        results: list[dict[str, Any]] = json.loads(output.text)["results"]
    except ValueError:
        return [{"id": "the run itself", "status": "failed", "errors": [output.text]}]
    return results


def _counts(cases: list[dict[str, Any]], beyond: dict[str, str]) -> Counts:
    """`beyond`: tests that the model can not pass, and why."""
    failed, skipped = [], []
    for case in cases:
        said = "; ".join(case.get("errors", []))
        if case["status"] == "failed" and case["id"] in beyond:
            skipped.append(Case(case["id"], beyond[case["id"]]))
        elif case["status"] == "failed":
            failed.append(Case(case["id"], said))
        elif case["status"] == "skipped":
            skipped.append(Case(case["id"], said))
    return Counts(passed=len(cases) - len(failed) - len(skipped), failed=failed, skipped=skipped)
