"""A chat completion as it is shown later: with what was asked, and its messages one by one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from formats.chat import chat_completion
from formats.transcript import Transcript
from schemas.ids import ResponseId, chat_id
from schemas.requests import GenerationRequest, ImageContent, Message, OutputFormat, TextContent
from schemas.tools import Tool, ToolName


def stored_chat_completion(transcript: Transcript) -> dict[str, Any]:
    """The chat.completion object and the parameters beside it, as OpenAI's reference shows stored ones.

    Of a response that was finished and did not fail. What was not given is null.
    """
    accepted = transcript.accepted
    assert accepted is not None
    request = accepted.request
    return chat_completion(transcript) | {
        "request_id": accepted.request_id or None,
        "metadata": request.metadata,
        "input_user": request.user,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "seed": request.seed,
        "tools": [_tool(tool) for tool in request.tools] or None,
        "tool_choice": _tool_choice(request),
        "response_format": _format(request.output_format),
        "system_fingerprint": None,
    }


def store_messages(response_id: ResponseId, messages: Iterable[Message]) -> list[dict[str, Any]]:
    """What was said before the answer, the oldest first."""
    return [{"id": f"{chat_id(response_id)}-{place}"} | _message(one) for place, one in enumerate(messages)]


def _message(message: Message) -> dict[str, Any]:
    """Text alone stands in `content`; of several parts that is their text, and all are in `content_parts`."""
    has_parts = not isinstance(message.content, str)
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.tool_calls
    ]
    is_empty = not message.text and (has_parts or bool(calls))
    shown: dict[str, Any] = {"role": message.role, "content": None if is_empty else message.text}
    shown |= {"name": None, "refusal": None, "content_parts": [_part(p) for p in message.parts] if has_parts else None}
    if calls:
        shown["tool_calls"] = calls
    if message.role == "tool":
        shown["tool_call_id"] = message.tool_call_id
    return shown


def _part(part: TextContent | ImageContent) -> dict[str, Any]:
    if isinstance(part, ImageContent):
        return {"type": "image_url", "image_url": {"url": part.url, "detail": part.detail}}
    return {"type": "text", "text": part.text}


def _tool(tool: Tool) -> dict[str, Any]:
    about = {"description": tool.description, "parameters": tool.parameters, "strict": tool.strict}
    return {"type": "function", "function": {"name": tool.name, **about}}


def _tool_choice(request: GenerationRequest) -> str | dict[str, Any] | None:
    if not request.tools:
        return None
    choice = request.tool_choice
    if isinstance(choice, ToolName):
        return _function(choice.name)
    if request.allowed_tools:
        allowed = {"mode": choice, "tools": [_function(name) for name in request.allowed_tools]}
        return {"type": "allowed_tools", "allowed_tools": allowed}
    return choice


def _function(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def _format(wanted: OutputFormat | None) -> dict[str, Any] | None:
    if wanted is None:
        return None
    if wanted.schema is None:
        return {"type": "json_object"}
    schema = {"name": wanted.name, "description": wanted.description, "schema": wanted.schema, "strict": wanted.strict}
    return {"type": "json_schema", "json_schema": schema}
