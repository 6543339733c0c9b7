"""Chat completions: the whole, and the chunks of a stream."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from schemas.answers.common import Answer, Count, Error, Nothing, UnixSeconds
from schemas.answers.logprobs import TokensObject
from schemas.requests import ServiceTier

ChatName = Annotated[str, Meta(pattern=r"\Achatcmpl-[0-9a-f]{32}\Z")]
"""Id of a response as chat completions show it."""
FinishReason = Literal["stop", "length", "content_filter", "tool_calls"]


class PromptTokensDetails(Answer, frozen=True, kw_only=True):
    cached_tokens: Count


class CompletionTokensDetails(Answer, frozen=True, kw_only=True):
    reasoning_tokens: Count


class CompletionUsage(Answer, frozen=True, kw_only=True):
    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class CalledFunction(Answer, frozen=True, kw_only=True):
    name: str
    arguments: str
    """JSON text as the model wrote it."""


class ToolCallObject(Answer, frozen=True, kw_only=True):
    id: str
    type: Literal["function"]
    function: CalledFunction


class AssistantMessage(Answer, frozen=True, kw_only=True):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    annotations: Nothing
    tool_calls: list[ToolCallObject] | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET


class ChatChoice(Answer, frozen=True, kw_only=True):
    index: Count
    message: AssistantMessage
    logprobs: TokensObject | None
    finish_reason: FinishReason


class ChatCompletion(Answer, frozen=True, kw_only=True):
    """A whole chat completion."""

    id: ChatName
    object: Literal["chat.completion"]
    created: UnixSeconds
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage
    service_tier: ServiceTier


class FunctionPiece(Answer, frozen=True, kw_only=True):
    arguments: str
    name: str | UnsetType = UNSET
    """With the first piece."""


class ToolCallPiece(Answer, frozen=True, kw_only=True):
    """A piece of a call; id, type and name stand in the first one."""

    index: Count
    function: FunctionPiece
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class ChatDelta(Answer, frozen=True, kw_only=True):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallPiece] | UnsetType = UNSET


class ChatChunkChoice(Answer, frozen=True, kw_only=True):
    index: Count
    delta: ChatDelta
    logprobs: TokensObject | None
    finish_reason: FinishReason | None


class ChatCompletionChunk(Answer, frozen=True, kw_only=True):
    """What stands behind `data:` in the stream of a chat completion."""

    id: ChatName
    object: Literal["chat.completion.chunk"]
    created: UnixSeconds
    model: str
    choices: list[ChatChunkChoice]
    usage: CompletionUsage | UnsetType | None = UNSET
    """Only where it was asked for: null, and in the last chunk the whole."""
    service_tier: ServiceTier | UnsetType = UNSET
    """Only where one was asked for."""


class FailureChunk(Answer, frozen=True, kw_only=True):
    """Instead of a last chunk: the response failed or was cancelled."""

    error: Error


class DeletedChatCompletion(Answer, frozen=True, kw_only=True):
    id: str
    object: Literal["chat.completion.deleted"]
    deleted: Literal[True]
