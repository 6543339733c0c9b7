"""Stored chat completions: with what was asked, and message by message."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from schemas.answers.chat import ChatCompletion, ToolCallObject
from schemas.answers.common import Answer, IdPage
from schemas.answers.items import ImageDetail


class NamedFunctionObject(Answer, frozen=True, kw_only=True):
    name: str


class ChatFunction(NamedFunctionObject, frozen=True, kw_only=True):
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None


class ChatToolObject(Answer, frozen=True, kw_only=True):
    type: Literal["function"]
    function: ChatFunction


class ChatToolName(Answer, frozen=True, kw_only=True):
    type: Literal["function"]
    function: NamedFunctionObject


class ChatToolNameChoice(Answer, frozen=True, kw_only=True, tag_field="type", tag="function"):
    function: NamedFunctionObject


class AllowedChatTools(Answer, frozen=True, kw_only=True):
    mode: Literal["auto", "none", "required"]
    tools: list[ChatToolName]


class AllowedChatToolsChoice(Answer, frozen=True, kw_only=True, tag_field="type", tag="allowed_tools"):
    """Some of the tools."""

    allowed_tools: AllowedChatTools


class JsonSchemaObject(Answer, frozen=True, kw_only=True):
    name: str
    description: str | None
    schema: dict[str, Any]
    strict: bool | None


class ResponseFormatObject(Answer, frozen=True, kw_only=True):
    """What the output must be; the schema only with the type `json_schema`."""

    type: Literal["json_object", "json_schema"]
    json_schema: JsonSchemaObject | UnsetType = UNSET


class StoredChatCompletion(ChatCompletion, frozen=True, kw_only=True):
    """A chat completion with what was asked; what was not given is null."""

    request_id: str | None
    metadata: dict[str, str]
    input_user: str | None
    temperature: float | None
    top_p: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    seed: int | None
    tools: list[ChatToolObject] | None
    tool_choice: Literal["auto", "none", "required"] | ChatToolNameChoice | AllowedChatToolsChoice | None
    response_format: ResponseFormatObject | None
    system_fingerprint: None


class StoredChatPage(IdPage[StoredChatCompletion], frozen=True, kw_only=True):
    """A part of the list of stored chat completions."""


class ImageUrlObject(Answer, frozen=True, kw_only=True):
    url: str
    detail: ImageDetail


class ChatTextPart(Answer, frozen=True, kw_only=True, tag_field="type", tag="text"):
    text: str


class ChatImagePart(Answer, frozen=True, kw_only=True, tag_field="type", tag="image_url"):
    image_url: ImageUrlObject


class StoredMessage(Answer, frozen=True, kw_only=True):
    """What was said before the answer. Of several parts `content` has the text, and `content_parts` all."""

    id: Annotated[str, Meta(pattern=r"\Achatcmpl-[0-9a-f]{32}-[0-9]+\Z")]
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None
    name: None
    refusal: None
    content_parts: list[ChatTextPart | ChatImagePart] | None
    tool_calls: list[ToolCallObject] | UnsetType = UNSET
    tool_call_id: str | UnsetType = UNSET
    """Of a tool's message."""


class StoredMessagePage(IdPage[StoredMessage], frozen=True, kw_only=True):
    """A part of the messages."""
