"""The Response object, as the Open Responses specification has it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from schemas.answers.common import Answer, Count, UnixSeconds
from schemas.answers.items import OutputItem
from schemas.requests import ReasoningEffort, ServiceTier, Truncation, Verbosity

ResponseName = Annotated[str, Meta(pattern=r"\Aresp_[0-9a-f]{32}\Z")]
"""Id of a response as the Responses API shows it."""


class IncompleteDetails(Answer, frozen=True, kw_only=True):
    reason: Literal["max_output_tokens", "content_filter"]


class ResponseError(Answer, frozen=True, kw_only=True):
    """Why it failed; `code` is stable."""

    code: str
    message: str


class InputTokensDetails(Answer, frozen=True, kw_only=True):
    cached_tokens: Count


class OutputTokensDetails(Answer, frozen=True, kw_only=True):
    reasoning_tokens: Count


class ResponseUsage(Answer, frozen=True, kw_only=True):
    input_tokens: Count
    input_tokens_details: InputTokensDetails
    output_tokens: Count
    output_tokens_details: OutputTokensDetails
    total_tokens: Count


class FunctionTool(Answer, frozen=True, kw_only=True):
    type: Literal["function"]
    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None


class FunctionName(Answer, frozen=True, kw_only=True):
    type: Literal["function"]
    name: str


class FunctionToolChoice(Answer, frozen=True, kw_only=True, tag_field="type", tag="function"):
    name: str


class AllowedToolsChoice(Answer, frozen=True, kw_only=True, tag_field="type", tag="allowed_tools"):
    """Some of the tools."""

    mode: Literal["auto", "none", "required"]
    tools: list[FunctionName]


class TextFormatObject(Answer, frozen=True, kw_only=True):
    """What the output must be; the schema only with the type `json_schema`."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    schema: dict[str, Any] | UnsetType = UNSET
    strict: bool | UnsetType = UNSET


class TextObject(Answer, frozen=True, kw_only=True):
    format: TextFormatObject
    verbosity: Verbosity


class ReasoningObject(Answer, frozen=True, kw_only=True):
    effort: ReasoningEffort | None
    summary: Literal["auto"] | None


class ConversationName(Answer, frozen=True, kw_only=True):
    """Which conversation it is a turn of."""

    id: str


class ResponseObject(Answer, frozen=True, kw_only=True):
    """A response as its log stands: every key is there, whatever its status."""

    id: ResponseName
    object: Literal["response"]
    created_at: UnixSeconds
    completed_at: UnixSeconds | None
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    incomplete_details: IncompleteDetails | None
    model: str
    previous_response_id: ResponseName | None
    conversation: ConversationName | None
    instructions: str | None
    output: list[OutputItem]
    """Empty until it has ended."""
    error: ResponseError | None
    tools: list[FunctionTool]
    tool_choice: Literal["auto", "none", "required"] | FunctionToolChoice | AllowedToolsChoice
    truncation: Truncation
    parallel_tool_calls: bool
    text: TextObject
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    top_logprobs: Count
    temperature: float
    reasoning: ReasoningObject
    usage: ResponseUsage | None
    """Once it has ended."""
    max_output_tokens: int | None
    max_tool_calls: int | None
    store: bool
    background: bool
    service_tier: ServiceTier
    metadata: dict[str, str]
    safety_identifier: str | None
    prompt_cache_key: str | None
    prompt_cache_retention: Literal["in_memory", "24h"] | None
    user: str | None
    fork_of: ResponseName | UnsetType = UNSET
    """The response whose events a fork begins with; others have neither this nor the next."""
    fork_after: Count | UnsetType = UNSET
    """The last of them."""


class DeletedResponse(Answer, frozen=True, kw_only=True):
    id: str
    object: Literal["response"]
    deleted: Literal[True]
