"""From the AI SDK's messages to a GenerationRequest, by the rules of its own `convertToModelMessages`.

Reasoning, sources and data are for the client alone. A call without a result is left out: it was stopped, and
models want a result for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from formats.ui_parts import chunks_of
from responses.content import message_content
from responses.tools import responses_tools
from schemas.bodies import Part
from schemas.errors import InvalidRequest
from schemas.requests import ContinuedMessage, GenerationRequest, Message
from schemas.tools import ToolCall
from schemas.ui_messages import UiChatBody, UiMessage, UiPart

_DENIED = "The user did not allow this call."
_NamedPart = tuple[str, UiPart]
"""With its path in the body."""


def resolve_ui_chat(body: UiChatBody, *, model: str, default_max: int, deadline_at_ms: int) -> GenerationRequest:
    """Raises InvalidRequest for a part that no model can be given."""
    tools = responses_tools(body)
    return GenerationRequest(
        model=model,
        messages=messages_of_ui(body.messages),
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens or default_max or None,
        temperature=body.temperature,
        top_p=body.top_p,
        seed=body.seed,
        tools=tools.tools,
        tool_choice=tools.choice,
        allowed_tools=tools.allowed,
        metadata=body.metadata,
        continued=_continued(body),
        deadline_at_ms=deadline_at_ms,
    )


def _continued(body: UiChatBody) -> ContinuedMessage | None:
    message = body.continued
    return ContinuedMessage(message.id, chunks_of(message.parts)) if message is not None else None


def messages_of_ui(messages: Sequence[UiMessage]) -> list[Message]:
    """Raises InvalidRequest, naming the part."""
    found: list[Message] = []
    for i, message in enumerate(messages):
        param = f"messages[{i}]"
        parts = [(f"{param}.parts[{j}]", part) for j, part in enumerate(message.parts)]
        if message.role == "assistant":
            found += _assistant_messages(parts)
        else:
            found.append(Message(message.role, message_content(_content(parts, message.role, param), param)))
    if not found:
        raise InvalidRequest("The messages have nothing that a model can be given.", param="messages")
    return found


def _content(parts: Iterable[_NamedPart], role: str, param: str) -> list[Part]:
    found = []
    for path, part in parts:
        if part.type == "text":
            found.append(Part("text", text=part.text))
        elif part.type == "file" and role == "user":
            found.append(_image(part, path))
    if not found:
        raise InvalidRequest(f"{param} has no text and no image.", param=f"{param}.parts")
    return found


def _image(part: UiPart, path: str) -> Part:
    kind = part.media_type or ""
    if kind.partition("/")[0] != "image":
        raise InvalidRequest(
            f"{path}: a file of the type {kind[:100]!r} can not be given to a model here, only images.",
            param=f"{path}.mediaType",
        )
    return Part("input_image", image_url=part.url)


def _assistant_messages(parts: Iterable[_NamedPart]) -> list[Message]:
    """One message for each step, behind it the results of its calls."""
    steps: list[list[_NamedPart]] = [[]]
    for path, part in parts:
        if part.type == "step-start":
            steps.append([])
        elif part.type == "file":
            raise InvalidRequest(f"{path}: a file of the assistant's can not be given to a model here.", param=path)
        else:
            steps[-1].append((path, part))
    return [message for step in steps for message in _step_messages(step)]


def _step_messages(step: list[_NamedPart]) -> list[Message]:
    text = "".join(part.text or "" for _, part in step if part.type == "text")
    results = [(_call(path, part), _result(part)) for path, part in step if part.called_tool is not None]
    answered = [(call, result) for call, result in results if result is not None]
    if not text and not answered:
        return []
    said = Message("assistant", text, [call for call, _ in answered])
    return [said, *(Message("tool", result, [], call.id) for call, result in answered)]


def _call(path: str, part: UiPart) -> ToolCall:
    if not part.tool_call_id or not part.called_tool:
        raise InvalidRequest(f"{path}: a call needs a toolCallId and the name of the tool.", param=path)
    given = part.raw_input if part.input in (None, msgspec.UNSET) else part.input
    return ToolCall(part.tool_call_id, part.called_tool, "{}" if given is msgspec.UNSET else _text(given))


def _result(part: UiPart) -> str | None:
    """As the model is told; None while there is none."""
    match part.state:
        case "output-available":
            return "" if part.output is msgspec.UNSET else _text(part.output)
        case "output-error":
            return part.error_text or "The tool failed."
        case "output-denied":
            return _DENIED
        case _:
            return None


def _text(value: Any) -> str:
    """Text as it is, everything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
