"""Requests → prompt ids, with the tokenizer and the chat template of a model folder."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Any

import jinja2
import msgspec

from schemas.errors import InvalidRequest
from schemas.requests import GenerationRequest, Message
from schemas.tools import Tool, ToolCall


class Prompts:
    """The prompts of one model. Its methods may run in threads."""

    def __init__(self, tokenizer: Any, chat_template: str | None = None) -> None:
        self._tokenizer = tokenizer
        self._template = chat_template or tokenizer.chat_template

    def ids_of(self, request: GenerationRequest) -> list[int]:
        """Raises InvalidRequest where the model can not be asked so."""
        if request.prompt is None:
            return self._encode(self._rendered(request), special=False)
        if isinstance(request.prompt, str):
            return self._encode(request.prompt, special=True)
        self._check_ids(request.prompt, "prompt")
        return list(request.prompt)

    def check_bias(self, bias: Collection[int]) -> None:
        """Raises InvalidRequest for what is no token of the model."""
        self._check_ids(bias, "logit_bias")

    def _check_ids(self, ids: Collection[int], param: str) -> None:
        size = len(self._tokenizer)
        if any(not 0 <= token < size for token in ids):
            raise InvalidRequest(f"{param} has token ids that the model does not know: 0 to {size - 1}.", param=param)

    def decode(self, ids: list[int]) -> str:
        """Text without special tokens; spaces as they are."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _rendered(self, request: GenerationRequest) -> str:
        if not self._template:
            raise InvalidRequest("The model has no chat template: it takes a bare prompt only.", param="messages")
        tools = [_plain_tool(tool) for tool in request.tools] if request.tool_choice != "none" else []
        try:
            text: str = self._tokenizer.apply_chat_template(
                [_plain(message) for message in request.prompt_messages()],
                tools=tools or None,
                chat_template=self._template,
                add_generation_prompt=True,
                tokenize=False,
            )
        except (jinja2.TemplateError, ValueError, TypeError) as exc:
            raise InvalidRequest(f"The model's chat template refuses the messages: {exc}", param="messages") from exc
        return text

    def _encode(self, text: str, *, special: bool) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=special, verbose=False).input_ids
        return ids


def _plain(message: Message) -> dict[str, Any]:
    """As templates expect it."""
    role = "system" if message.role == "developer" else message.role
    plain: dict[str, Any] = {"role": role, "content": message.text}
    if message.tool_calls:
        plain["tool_calls"] = [_plain_call(call) for call in message.tool_calls]
    if message.tool_call_id:
        plain["tool_call_id"] = message.tool_call_id
    return plain


def _plain_call(call: ToolCall) -> dict[str, Any]:
    arguments: Any = call.arguments
    with contextlib.suppress(msgspec.DecodeError):  # the model wrote no JSON: the template gets it as it was
        arguments = msgspec.json.decode(call.arguments)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _plain_tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description or "", "parameters": tool.parameters or {}}
    return {"type": "function", "function": function}
