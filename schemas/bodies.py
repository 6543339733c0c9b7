"""API bodies as clients send them, by their fields: what is not here is not served.

Shapes only; `schemas/api.py` reads them. A field that OpenAI's reference allows to be null is
written `| None` where it stands inside another: at the top, null counts as not given.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from schemas.requests import MAX_CHOICES, ReasoningEffort, Truncation, Verbosity

_Text = Annotated[str, Meta(max_length=4_000_000)]
_ShortText = Annotated[str, Meta(max_length=512)]
_Temperature = Annotated[float, Meta(ge=0, le=2)]
_TopP = Annotated[float, Meta(ge=0, le=1)]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Tokens = Annotated[int, Meta(ge=1, le=10_000_000)]
_Top = Annotated[int, Meta(ge=0, le=20)]
_Bias = Annotated[float, Meta(ge=-100, le=100)]
_TokenId = Annotated[str, Meta(pattern=r"\A(?:0|[1-9][0-9]{0,8})\Z")]
_LogitBias = Annotated[dict[_TokenId, _Bias], Meta(max_length=1024)]
_Choices = Annotated[int, Meta(ge=1, le=MAX_CHOICES)]
_Seed = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
_StopText = Annotated[str, Meta(min_length=1, max_length=200)]
_Stop = _StopText | Annotated[list[_StopText], Meta(max_length=4)]
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]


_Image = Annotated[str, Meta(max_length=30_000_000)]
_Name = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"\A[a-zA-Z0-9_.-]+\Z")]
_CallId = Annotated[str, Meta(min_length=1, max_length=256)]
_Detail = Literal["auto", "low", "high"]
_Schema = dict[str, Any]
_SafetyId = Annotated[str, Meta(max_length=128)]
_CacheRetention = Literal["in_memory", "24h"]
Include = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]
"""All of OpenAI's. The first adds something here; images of the input are shown anyway, and of reasoning that is
encrypted or tools that are not served there is nothing to add."""


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """What every body has."""

    model: _ShortText
    store: bool = True
    """False: nothing of its content outlives `OPENCHAT_UNSTORED_TTL_S`."""


class ImageUrl(msgspec.Struct, frozen=True):
    url: _Image
    detail: _Detail = "auto"


class Part(msgspec.Struct, frozen=True):
    """A content part: text, or an image as chat completions or the Responses API write it."""

    type: Literal["text", "input_text", "output_text", "refusal", "image_url", "input_image"]
    text: _Text | None = None
    refusal: _Text | None = None
    image_url: ImageUrl | _Image | None = None
    detail: _Detail = "auto"


_Content = _Text | list[Part]


class FunctionCall(msgspec.Struct, frozen=True):
    name: _Name
    arguments: _Text


class ChatToolCall(msgspec.Struct, frozen=True):
    """A call that the model made earlier, as chat completions write it."""

    id: _CallId
    function: FunctionCall
    type: Literal["function"] = "function"


class ChatMessage(msgspec.Struct, frozen=True):
    """A message of chat completions."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: _Content | None = None
    tool_calls: list[ChatToolCall] | None = None
    tool_call_id: _CallId | None = None
    name: _ShortText | None = None
    """Taken and not used: no engine tells two users apart."""
    refusal: _Text | None = None
    audio: Any = None
    """Not served, nor the next."""
    function_call: Any = None


class MessageItem(msgspec.Struct, frozen=True, tag="message"):
    """A message as an input item of the Responses API; `type` may be left out."""

    role: Literal["system", "developer", "user", "assistant"]
    content: _Content


class FunctionCallItem(msgspec.Struct, frozen=True, tag="function_call"):
    call_id: _CallId
    name: _Name
    arguments: _Text


class FunctionOutputItem(msgspec.Struct, frozen=True, tag="function_call_output"):
    call_id: _CallId
    output: _Text | list[Part]


class ReasoningItem(msgspec.Struct, frozen=True, tag="reasoning"):
    """Sent back by clients that keep the history; models are not shown their earlier reasoning."""


class ItemReference(msgspec.Struct, frozen=True, tag="item_reference"):
    """An item of an earlier response, by its id instead of its content; `type` may be left out."""

    id: _ShortText


InputItem = MessageItem | FunctionCallItem | FunctionOutputItem | ReasoningItem


class Function(msgspec.Struct, frozen=True):
    """A function as chat completions describe it."""

    name: _Name
    description: _Text | None = None
    parameters: _Schema | None = None
    strict: bool | None = None


class ChatTool(msgspec.Struct, frozen=True):
    type: Literal["function"]
    function: Function


class ResponsesTool(msgspec.Struct, frozen=True):
    """A function as the Responses API describes it."""

    type: Literal["function"]
    name: _Name
    description: _Text | None = None
    parameters: _Schema | None = None
    strict: bool | None = None


class NamedFunction(msgspec.Struct, frozen=True):
    name: _Name


_ToolMode = Literal["auto", "none", "required"]
_ServiceTier = Literal["auto", "default", "flex", "priority", "scale", "fast", "ultrafast"]
_MAX_TOOLS = 128


class ChatToolChoice(msgspec.Struct, frozen=True, tag_field="type", tag="function"):
    function: NamedFunction


class ResponsesToolChoice(msgspec.Struct, frozen=True, tag_field="type", tag="function"):
    name: _Name


class ChatToolRef(msgspec.Struct, frozen=True):
    type: Literal["function"]
    function: NamedFunction


class ResponsesToolRef(msgspec.Struct, frozen=True):
    type: Literal["function"]
    name: _Name


class ChatAllowed(msgspec.Struct, frozen=True):
    tools: Annotated[list[ChatToolRef], Meta(min_length=1, max_length=_MAX_TOOLS)]
    mode: _ToolMode = "auto"


class ChatAllowedTools(msgspec.Struct, frozen=True, tag_field="type", tag="allowed_tools"):
    """Some of the tools, as chat completions write them."""

    allowed_tools: ChatAllowed


class ResponsesAllowedTools(msgspec.Struct, frozen=True, tag_field="type", tag="allowed_tools"):
    """Some of the tools, as the Responses API writes them."""

    tools: Annotated[list[ResponsesToolRef], Meta(min_length=1, max_length=_MAX_TOOLS)]
    mode: _ToolMode = "auto"


class JsonSchema(msgspec.Struct, frozen=True):
    name: _Name
    schema: _Schema | None = None
    description: _Text | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    """`response_format` of chat completions."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class TextFormat(msgspec.Struct, frozen=True):
    """`text.format` of the Responses API."""

    type: Literal["text", "json_object", "json_schema"]
    name: _Name | None = None
    schema: _Schema | None = None
    description: _Text | None = None
    strict: bool | None = None


class TextOptions(msgspec.Struct, frozen=True):
    format: TextFormat = TextFormat("text")
    verbosity: Verbosity | None = None


class ReasoningOptions(msgspec.Struct, frozen=True):
    effort: ReasoningEffort | None = None
    summary: Literal["auto"] | None = None
    """It is for the model to decide, and none here makes any: the reasoning itself is in the output."""


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False


class ConversationRef(msgspec.Struct, frozen=True):
    id: _ShortText


_Messages = Annotated[list[ChatMessage], Meta(min_length=1, max_length=10_000)]
_Items = Annotated[list[InputItem | ItemReference], Meta(min_length=1, max_length=10_000)]


class ChatBody(Body, frozen=True, kw_only=True):
    """POST /v1/chat/completions."""

    messages: _Messages
    n: _Choices = 1
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    temperature: _Temperature | None = None
    top_p: _TopP | None = None
    stop: _Stop | None = None
    seed: _Seed | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    tools: Annotated[list[ChatTool], Meta(max_length=_MAX_TOOLS)] = []
    tool_choice: _ToolMode | ChatToolChoice | ChatAllowedTools = "auto"
    parallel_tool_calls: bool = True
    response_format: ResponseFormat = ResponseFormat("text")
    logprobs: bool = False
    top_logprobs: _Top = 0
    logit_bias: _LogitBias = {}
    reasoning_effort: ReasoningEffort | None = None
    reasoning: ReasoningOptions = ReasoningOptions()
    """Not OpenAI's here, but what clients of several APIs send: as in the Responses API."""
    verbosity: Verbosity | None = None
    metadata: Metadata = {}
    user: _ShortText | None = None
    service_tier: _ServiceTier | None = None
    safety_identifier: _SafetyId | None = None
    prompt_cache_key: _ShortText | None = None
    prompt_cache_retention: _CacheRetention | None = None


class ChatCompletionUpdateBody(msgspec.Struct, frozen=True, kw_only=True):
    """POST /v1/chat/completions/{id}: takes the place of all metadata; null takes all away."""

    metadata: Metadata | None


class ResponsesBody(Body, frozen=True, kw_only=True):
    """POST /v1/responses."""

    input: _Text | _Items
    instructions: _Text | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    max_output_tokens: _Tokens | None = None
    temperature: _Temperature | None = None
    top_p: _TopP | None = None
    presence_penalty: _Penalty | None = None
    """Of Open Responses, as the next; OpenAI's has neither."""
    frequency_penalty: _Penalty | None = None
    reasoning: ReasoningOptions = ReasoningOptions()
    tools: Annotated[list[ResponsesTool], Meta(max_length=_MAX_TOOLS)] = []
    tool_choice: _ToolMode | ResponsesToolChoice | ResponsesAllowedTools = "auto"
    parallel_tool_calls: bool = True
    text: TextOptions = TextOptions()
    top_logprobs: _Top = 0
    include: Annotated[list[Include], Meta(max_length=64)] = []
    truncation: Truncation = "disabled"
    max_tool_calls: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """Of tools that the server runs: there are none."""
    metadata: Metadata = {}
    user: _ShortText | None = None
    service_tier: _ServiceTier | None = None
    safety_identifier: _SafetyId | None = None
    prompt_cache_key: _ShortText | None = None
    prompt_cache_retention: _CacheRetention | None = None
    background: bool = False
    conversation: _ShortText | ConversationRef | None = None
    previous_response_id: _ShortText | None = None


class ForkBody(msgspec.Struct, frozen=True, kw_only=True):
    """POST /v1/responses/{id}/fork: what is not given stays as it was."""

    after: Annotated[int, Meta(ge=0, le=1_000_000_000)]
    """Sequence of the last event that is kept."""
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    max_output_tokens: _Tokens | None = None
    """Of the whole output, with what is kept."""
    temperature: _Temperature | None = None
    top_p: _TopP | None = None
    stop: _Stop | None = None
    seed: _Seed | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    metadata: Metadata | None = None
    user: _ShortText | None = None
    background: bool | None = None
    store: bool | None = None


FIXED_IN_FORKS = frozenset(ResponsesBody.__struct_fields__) - frozenset(ForkBody.__struct_fields__)
"""What a fork can not change, and so does not take."""


class ConversationBody(msgspec.Struct, frozen=True, kw_only=True):
    """POST /v1/conversations."""

    items: Annotated[list[InputItem], Meta(max_length=20)] = []
    metadata: Metadata = {}


class ConversationUpdateBody(msgspec.Struct, frozen=True, kw_only=True):
    """POST /v1/conversations/{id}: takes the place of all metadata."""

    metadata: Metadata


class ConversationItemsBody(msgspec.Struct, frozen=True, kw_only=True):
    """POST /v1/conversations/{id}/items."""

    items: Annotated[list[InputItem], Meta(min_length=1, max_length=20)]


_Id = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
_TextsOrIds = _Text | Annotated[list[_Text | _Id | list[_Id]], Meta(min_length=1, max_length=1_000_000)]
MAX_INPUTS = 2048
"""Of one embedding, as OpenAI has it."""


def _forms(*, least: int, most: int) -> dict[str, Any]:
    """What the type can not say: texts and ids are not mixed, and so long each at least, and so many at most."""
    text: dict[str, Any] = {"type": "string", "minLength": least}
    ids: dict[str, Any] = {"type": "array", "minItems": least, "items": {"type": "integer"}}
    several = [{"type": "array", "maxItems": most, "items": one} for one in (text, ids)]
    return {"oneOf": [text, ids, *several]}


class CompletionsBody(Body, frozen=True, kw_only=True):
    """POST /v1/completions, the legacy API: one prompt or several, as texts or as token ids."""

    prompt: Annotated[_TextsOrIds, Meta(extra_json_schema=_forms(least=0, most=MAX_CHOICES))]
    n: _Choices = 1
    """Of each prompt."""
    best_of: _Choices | None = None
    """The best `n` of so many are not chosen here: as many as `n`, or not given."""
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    max_tokens: _Tokens = 16
    temperature: _Temperature | None = None
    top_p: _TopP | None = None
    stop: _Stop | None = None
    seed: _Seed | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    logit_bias: _LogitBias = {}
    user: _ShortText | None = None


class EmbeddingsBody(Body, frozen=True, kw_only=True):
    """POST /v1/embeddings: one input or several, as texts or as token ids."""

    input: Annotated[_TextsOrIds, Meta(extra_json_schema=_forms(least=1, most=MAX_INPUTS))]
    dimensions: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    encoding_format: Literal["float", "base64"] = "float"
    user: _ShortText | None = None
