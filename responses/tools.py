"""Tools and the choice among them, as both APIs write them → as a request has them."""

from __future__ import annotations

from typing import Literal

import msgspec

from schemas.bodies import (
    ChatAllowedTools,
    ChatBody,
    ChatToolChoice,
    ResponsesAllowedTools,
    ResponsesBody,
    ResponsesToolChoice,
)
from schemas.errors import InvalidRequest
from schemas.tools import Tool, ToolName
from schemas.ui_messages import UiChatBody

_Mode = Literal["auto", "none", "required"]


class Tools(msgspec.Struct, frozen=True):
    """What of a request is about tools."""

    tools: list[Tool]
    choice: _Mode | ToolName
    allowed: list[str]
    """Empty: all."""


def chat_tools(body: ChatBody) -> Tools:
    """Raises InvalidRequest."""
    tools = [
        Tool(
            name=tool.function.name,
            description=tool.function.description,
            parameters=tool.function.parameters,
            strict=tool.function.strict,
        )
        for tool in body.tools
    ]
    match body.tool_choice:
        case ChatToolChoice(function=function):
            return _named(tools, function.name)
        case ChatAllowedTools(allowed_tools=allowed):
            return _chosen(tools, allowed.mode, [tool.function.name for tool in allowed.tools])
        case mode:
            return _chosen(tools, mode, [])


def responses_tools(body: ResponsesBody | UiChatBody) -> Tools:
    """Raises InvalidRequest."""
    tools = [
        Tool(name=tool.name, description=tool.description, parameters=tool.parameters, strict=tool.strict)
        for tool in body.tools
    ]
    match body.tool_choice:
        case ResponsesToolChoice(name=name):
            return _named(tools, name)
        case ResponsesAllowedTools(tools=allowed, mode=mode):
            return _chosen(tools, mode, [tool.name for tool in allowed])
        case mode:
            return _chosen(tools, mode, [])


def _named(tools: list[Tool], name: str) -> Tools:
    _check_names(tools, [name])
    return Tools(tools, ToolName(name), [])


def _chosen(tools: list[Tool], mode: _Mode, allowed: list[str]) -> Tools:
    _check_names(tools, allowed)
    if mode == "required" and not tools:
        raise InvalidRequest("tool_choice is required, but there are no tools.", param="tool_choice")
    return Tools(tools, mode, list(dict.fromkeys(allowed)))


def _check_names(tools: list[Tool], chosen: list[str]) -> None:
    names = [tool.name for tool in tools]
    if len(set(names)) != len(names):
        raise InvalidRequest("Two tools have the same name.", param="tools")
    unknown = next((name for name in chosen if name not in names), None)
    if unknown is not None:
        raise InvalidRequest(f"tool_choice names {unknown!r}, which is not in tools.", param="tool_choice")
