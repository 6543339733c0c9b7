"""What a request is answered with: reasoning where it is wanted, then calls, JSON, or text.

- Calls, where tools are given: those that must be made, or that the last message of the user asks for.
- JSON, where an output format is given, with what the prompt offers.
- What the tools have said, once they have.
- "Count from 1 to 9" counts. Anything else is echoed; pictures are counted.

Some reasoning comes in front where an effort is asked for, the prompt says "think", or the model's name has "-o3".
"""

from __future__ import annotations

import re
from itertools import takewhile
from typing import Any

import msgspec

from engine.base import Delta, ToolPiece
from openchat_scripted.arguments import Offer, value_for
from schemas.requests import GenerationRequest, ImageContent, Message
from schemas.tools import Tool, ToolName

_TOKEN = re.compile(r"\s*(?:\w+|[^\w\s]+)|\s+\Z")
_COUNT = re.compile(r"\bcount (?:\w+ )?from (\d+) to (\d+)", re.IGNORECASE)
_MOST_COUNTED = 1_000
_ECHOED_WORDS = 12
_JSON_PIECE = 4
"""Characters of a token of JSON."""
_EMPTY_WORDS = {
    *("a", "an", "call", "do", "find", "function", "get", "list", "make", "my", "of"),
    *("run", "set", "show", "the", "to", "tool", "use"),
}
_LONG_WORD = 5
"""Letters from which on a word of a description says something."""


def pieces_of(request: GenerationRequest) -> list[Delta]:
    """The tokens of the whole answer. Raises InvalidRequest for a schema that it can not serve."""
    prompt = _question(request)
    reasoning = [Delta(reasoning=part) for part in _parts("Let me see.")] if _reasons(request, prompt) else []
    tools = _called(request, prompt)
    if tools:
        return [*reasoning, *_calls(request, tools, prompt)]
    if request.output_format is not None:
        return [*reasoning, *(Delta(text=part) for part in _json(_object(request.output_format.schema, prompt)))]
    return [*reasoning, *(Delta(text=part) for part in _parts(_said(request, prompt)))]


def _question(request: GenerationRequest) -> str:
    """What the user said last."""
    if request.prompt is not None:
        return request.prompt if isinstance(request.prompt, str) else f"{len(request.prompt)} tokens"
    return next((message.text for message in reversed(request.messages) if message.role == "user"), "")


def _reasons(request: GenerationRequest, prompt: str) -> bool:
    if request.reasoning_effort is not None:
        return request.reasoning_effort != "none"
    return "-o3" in request.model or "think" in prompt.lower()


def _called(request: GenerationRequest, prompt: str) -> list[Tool]:
    choice = request.tool_choice
    if isinstance(choice, ToolName):
        return [tool for tool in request.tools if tool.name == choice.name]
    if choice == "none" or not request.tools:
        return []
    asked_for = [tool for tool in request.tools if _is_asked_for(tool, prompt)]
    if choice == "required":
        return asked_for or request.tools[:1]
    return asked_for if request.messages[-1:] and request.messages[-1].role == "user" else []


def _is_asked_for(tool: Tool, prompt: str) -> bool:
    words = _words(prompt)
    described = {word for word in _words(tool.description or "") if len(word) >= _LONG_WORD}
    return tool.name in prompt or bool(words & (_words(tool.name) | described))


def _words(text: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", text)} - _EMPTY_WORDS


def _calls(request: GenerationRequest, tools: list[Tool], prompt: str) -> list[Delta]:
    """One of each tool; of a single one as many as its one argument is quoted in the prompt."""
    offers = [Offer(prompt) for _ in tools]
    if len(tools) == 1 and len(offers[0].quoted) > 1 and len((tools[0].parameters or {}).get("required", [])) == 1:
        offers = [Offer(f"'{quoted}'") for quoted in offers[0].quoted]
    pairs = [(tools[index % len(tools)], offer) for index, offer in enumerate(offers)]
    pieces = []
    for index, (tool, offer) in enumerate(pairs if request.parallel_tool_calls else pairs[:1]):
        pieces.append(ToolPiece(index, name=tool.name))
        arguments = value_for(tool.parameters, offer) if tool.parameters else {}
        pieces.extend(ToolPiece(index, arguments=part) for part in _json(arguments))
    return [Delta(tool=piece) for piece in pieces]


def _object(schema: dict[str, Any] | None, prompt: str) -> Any:
    if schema is not None:
        return value_for(schema, Offer(prompt))
    return dict.fromkeys(Offer(prompt).quoted or ["answer"], _echo(prompt))


def _said(request: GenerationRequest, prompt: str) -> str:
    results = list(takewhile(lambda message: message.role == "tool", reversed(request.messages)))
    if results:
        return "The tools say: " + "; ".join(message.text for message in reversed(results))
    count = _COUNT.search(prompt)
    if count:
        first, last = int(count[1]), int(count[2])
        return ", ".join(str(number) for number in range(first, min(last, first + _MOST_COUNTED) + 1))
    pictures = sum(_pictures(message) for message in request.messages)
    return (f"I see {pictures} image{'s' * (pictures != 1)}. " if pictures else "") + f"You said: {_echo(prompt)}"


def _pictures(message: Message) -> int:
    return sum(1 for part in message.parts if isinstance(part, ImageContent))


def _echo(prompt: str) -> str:
    return " ".join(prompt.split()[-_ECHOED_WORDS:])


def _parts(text: str) -> list[str]:
    return _TOKEN.findall(text)


def _json(value: Any) -> list[str]:
    text = msgspec.json.encode(value).decode()
    return [text[start : start + _JSON_PIECE] for start in range(0, len(text), _JSON_PIECE)]
