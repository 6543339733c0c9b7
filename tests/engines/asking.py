"""Words of the suite: making generations, collecting their deltas, and what they say together."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.base import Delta, Engine, Generation
from schemas.ids import new_response_id
from schemas.requests import GenerationRequest, Message
from schemas.tools import Tool
from tests.engines.subjects import Subject

QUESTION = "What is the capital of France?"
COUNT = "Count from one to fifty."
EMOJI = "🙂 😀 🎉 你 🙂 😀 🎉 你 🙂 😀 🎉 你 🙂 😀 🎉 你"
WEATHER = Tool(
    name="get_weather",
    description="The weather in a city.",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    },
)
CLOCK = Tool(
    name="get_time",
    description="The time.",
    parameters={  # vLLM's grammar for an object without properties lets a small model write blanks for ever
        "type": "object",
        "properties": {"zone": {"type": "string", "enum": ["utc", "local"]}},
        "required": ["zone"],
    },
)


def asked(text: str = QUESTION, *, after: list[Delta] | None = None, **parameters: Any) -> Generation:
    """A greedy generation, from the start or from what the deltas `after` said."""
    request = GenerationRequest(
        model="m",
        **{"messages": [Message("user", text)], "temperature": 0.0, "max_output_tokens": 16} | parameters,
    )
    return begun(request, tuple(ids_of(after or [])), text_of(after or []))


def prompted(prompt: str | list[int], **parameters: Any) -> Generation:
    """The same for a bare prompt, without a chat template."""
    return asked(messages=[], prompt=prompt, **parameters)


def begun(request: GenerationRequest, tokens: tuple[int, ...], text: str) -> Generation:
    return Generation(id=new_response_id(), request=request, prefix_tokens=tokens, prefix_text=text)


def continued(whole: Generation, tokens: list[int], text: str) -> Generation:
    """The same request, from a prefix of token ids."""
    return begun(whole.request, tuple(tokens), text)


async def collect(engine: Engine, wanted: Generation) -> list[Delta]:
    """All deltas without signs of life; they must be in order: each one piece, and the reason with the last."""
    *steps, last = [delta async for delta in engine.generate(wanted)]
    assert last.finish_reason in ("stop", "length", "content_filter")
    for step in steps:
        assert step.finish_reason is None
        assert step.has_piece or not step.tokens, "ids without a piece"
    deltas = [*(step for step in steps if step.has_piece), last]
    for delta in deltas:
        assert bool(delta.text) + bool(delta.reasoning) + (delta.tool is not None) <= 1
        (delta.text + delta.reasoning).encode()
    return deltas


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def reasoning_of(deltas: list[Delta]) -> str:
    return "".join(delta.reasoning for delta in deltas)


def ids_of(deltas: list[Delta]) -> list[int]:
    return [token for delta in deltas for token in delta.tokens]


def calls_of(deltas: list[Delta]) -> list[tuple[str, Any]]:
    """(name, arguments) of every call, in the order of their indexes, which must begin at 0 without a hole."""
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for piece in (delta.tool for delta in deltas if delta.tool is not None):
        if piece.index not in names:
            assert piece.name, "the first piece of a call has its name"
            names[piece.index] = ""
        names[piece.index] += piece.name
        arguments[piece.index] = arguments.get(piece.index, "") + piece.arguments
    assert list(names) == list(range(len(names)))
    return [(names[index], json.loads(arguments[index])) for index in names]


def needs(subject: Subject, *capabilities: str) -> None:
    """Skips the test where the engine does not declare one of them."""
    for name in capabilities:
        if not getattr(subject.engine.capabilities, name):
            pytest.skip(f"{subject.name} declares no {name}")
