"""From an API body to a GenerationRequest: names canonical, content plain."""

from __future__ import annotations

from collections.abc import Sequence

from responses.content import message_content, text_content
from responses.tools import chat_tools, responses_tools
from schemas.bodies import (
    MAX_INPUTS,
    ChatBody,
    ChatMessage,
    CompletionsBody,
    ConversationRef,
    EmbeddingsBody,
    FunctionCallItem,
    FunctionOutputItem,
    InputItem,
    ItemReference,
    MessageItem,
    ReasoningItem,
    ResponseFormat,
    ResponsesBody,
    TextFormat,
)
from schemas.errors import ConversationNotFound, InvalidRequest, ResponseNotFound, UnsupportedParameter
from schemas.ids import parse_conversation_id, parse_response_id
from schemas.requests import (
    MAX_CHOICES,
    EmbeddingInput,
    GenerationRequest,
    Message,
    OutputFormat,
    ReasoningEffort,
    ServiceTier,
)
from schemas.tools import ToolCall

_NO_SCHEMA = "Give the JSON schema, or the type json_object."


def resolve_chat(body: ChatBody, *, model: str, default_max: int, deadline_at_ms: int) -> GenerationRequest:
    """Raises InvalidRequest where parameters contradict each other."""
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise InvalidRequest("Give max_completion_tokens or max_tokens, not both.", param="max_tokens")
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs: true.", param="top_logprobs")
    tools = chat_tools(body)
    return GenerationRequest(
        model=model,
        messages=[_chat_message(message, f"messages[{i}]") for i, message in enumerate(body.messages)],
        n=body.n,
        max_output_tokens=body.max_completion_tokens or body.max_tokens or default_max or None,
        temperature=body.temperature,
        top_p=body.top_p,
        stop=_stops(body.stop),
        seed=body.seed,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        tools=tools.tools,
        tool_choice=tools.choice,
        allowed_tools=tools.allowed,
        parallel_tool_calls=body.parallel_tool_calls,
        output_format=_chat_format(body.response_format),
        logprobs=body.logprobs,
        top_logprobs=body.top_logprobs,
        logit_bias=_logit_bias(body.logit_bias),
        reasoning_effort=_effort(body),
        reasoning_summary=body.reasoning.summary,
        verbosity=body.verbosity,
        metadata=body.metadata,
        user=body.user,
        service_tier=_service_tier(body.service_tier),
        safety_identifier=body.safety_identifier,
        prompt_cache_key=body.prompt_cache_key,
        prompt_cache_retention=body.prompt_cache_retention,
        include_usage=body.stream_options.include_usage,
        deadline_at_ms=deadline_at_ms,
    )


def resolve_responses(body: ResponsesBody, *, model: str, default_max: int, deadline_at_ms: int) -> GenerationRequest:
    """Raises InvalidRequest where parameters contradict each other."""
    tools = responses_tools(body)
    return GenerationRequest(
        model=model,
        messages=_input_messages(body.input),
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens or default_max or None,
        temperature=body.temperature,
        top_p=body.top_p,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        tools=tools.tools,
        tool_choice=tools.choice,
        allowed_tools=tools.allowed,
        parallel_tool_calls=body.parallel_tool_calls,
        output_format=_text_format(body.text.format),
        logprobs="message.output_text.logprobs" in body.include or body.top_logprobs > 0,
        top_logprobs=body.top_logprobs,
        reasoning_effort=body.reasoning.effort,
        reasoning_summary=body.reasoning.summary,
        verbosity=body.text.verbosity,
        truncation=body.truncation,
        metadata=body.metadata,
        user=body.user,
        service_tier=_service_tier(body.service_tier),
        safety_identifier=body.safety_identifier,
        prompt_cache_key=body.prompt_cache_key,
        prompt_cache_retention=body.prompt_cache_retention,
        max_tool_calls=body.max_tool_calls,
        background=body.background,
        conversation=_conversation(body),
        previous_response_id=_previous(body),
        deadline_at_ms=deadline_at_ms,
    )


def _input_messages(given: str | list[InputItem | ItemReference]) -> list[Message]:
    if isinstance(given, str):
        return [Message("user", given)]
    messages = messages_of(given)
    if not messages:
        raise InvalidRequest("The input has no message.", param="input")
    return messages


def _conversation(body: ResponsesBody) -> str:
    """Its id, empty where none is given."""
    given = body.conversation.id if isinstance(body.conversation, ConversationRef) else body.conversation
    if given is None:
        return ""
    if body.previous_response_id is not None:
        raise InvalidRequest("Give conversation or previous_response_id, not both.", param="previous_response_id")
    conversation = parse_conversation_id(given)
    if conversation is None:
        raise ConversationNotFound(f"No conversation with the id {given[:100]!r}.", param="conversation")
    return conversation


def _previous(body: ResponsesBody) -> str:
    """Id of the response to go on from, empty where none is given."""
    if body.previous_response_id is None:
        return ""
    response_id = parse_response_id(body.previous_response_id)
    if response_id is None:
        raise ResponseNotFound(
            f"No response with the id {body.previous_response_id[:100]!r}.", param="previous_response_id"
        )
    return response_id


def resolve_completions(
    body: CompletionsBody, *, model: str, default_max: int, deadline_at_ms: int
) -> GenerationRequest:
    """Raises InvalidRequest for more choices than one response may have, UnsupportedParameter for best_of."""
    if body.best_of is not None and body.best_of != body.n:
        raise UnsupportedParameter(
            f"best_of is not supported other than equal to n ({body.n}): leave it out, and choose yourself.",
            param="best_of",
        )
    prompts = _inputs(body.prompt, "prompt")
    if len(prompts) * body.n > MAX_CHOICES:
        raise InvalidRequest(
            f"{len(prompts)} prompts with n = {body.n} make {len(prompts) * body.n} choices, "
            f"and a response has {MAX_CHOICES} at most: send several requests.",
            param="prompt" if len(prompts) > 1 else "n",
        )
    return GenerationRequest(
        model=model,
        prompt=prompts[0] if len(prompts) == 1 else None,
        prompts=prompts if len(prompts) > 1 else [],
        n=body.n,
        max_output_tokens=body.max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        stop=_stops(body.stop),
        seed=body.seed,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logprobs=body.logprobs is not None,
        top_logprobs=body.logprobs or 0,
        logit_bias=_logit_bias(body.logit_bias),
        user=body.user,
        include_usage=body.stream_options.include_usage,
        deadline_at_ms=deadline_at_ms,
    )


def resolve_embeddings(body: EmbeddingsBody, *, model: str, default_max: int, deadline_at_ms: int) -> GenerationRequest:
    """Raises InvalidRequest for inputs that are empty or too many."""
    inputs = _inputs(body.input, "input")
    if len(inputs) > MAX_INPUTS:
        raise InvalidRequest(f"At most {MAX_INPUTS} inputs at once.", param="input")
    if not all(inputs):
        raise InvalidRequest("An input is empty.", param="input")
    wanted = EmbeddingInput(inputs=inputs, dimensions=body.dimensions, encoding=body.encoding_format)
    return GenerationRequest(model=model, embed=wanted, user=body.user, deadline_at_ms=deadline_at_ms)


def _inputs(given: str | list[str | int | list[int]], param: str) -> list[str | list[int]]:
    """One text, one list of token ids, or several of either. Raises InvalidRequest for a mixture."""
    if isinstance(given, str):
        return [given]
    ids = [part for part in given if isinstance(part, int)]
    rest = [part for part in given if not isinstance(part, int)]
    if ids and rest:
        raise InvalidRequest("Give texts or token ids, not both in one list.", param=param)
    return [ids] if ids else rest


def _service_tier(given: str | None) -> ServiceTier | None:
    """What OpenAI's words mean here: `fast` is `priority`, and `scale`, which nobody has bought, is `default`."""
    match given:
        case None:
            return None
        case "flex":
            return "flex"
        case "priority" | "fast" | "ultrafast":
            return "priority"
        case _:
            return "default"


def _stops(given: str | list[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else given or []


def _effort(body: ChatBody) -> ReasoningEffort | None:
    """Raises InvalidRequest where both names say different things."""
    one, other = body.reasoning_effort, body.reasoning.effort
    if one and other and one != other:
        raise InvalidRequest("reasoning_effort and reasoning.effort are different; give one.", param="reasoning_effort")
    return one or other


def _logit_bias(given: dict[str, float]) -> dict[int, float]:
    return {int(token): bias for token, bias in given.items()}


def _chat_format(given: ResponseFormat) -> OutputFormat | None:
    if given.type == "text":
        return None
    if given.type == "json_object":
        return OutputFormat()
    schema = given.json_schema
    if schema is None or schema.schema is None:
        raise InvalidRequest(_NO_SCHEMA, param="response_format.json_schema")
    return OutputFormat(schema=schema.schema, name=schema.name, description=schema.description, strict=schema.strict)


def _text_format(given: TextFormat) -> OutputFormat | None:
    if given.type == "text":
        return None
    if given.type == "json_object":
        return OutputFormat()
    if given.schema is None or given.name is None:
        raise InvalidRequest(_NO_SCHEMA, param="text.format")
    return OutputFormat(schema=given.schema, name=given.name, description=given.description, strict=given.strict)


def _chat_message(message: ChatMessage, param: str) -> Message:
    _refuse_unserved(message, param)
    calls = [ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or []]
    if calls and message.role != "assistant":
        raise InvalidRequest("Only an assistant's message has tool_calls.", param=f"{param}.tool_calls")
    if message.role == "tool" and message.tool_call_id is None:
        raise InvalidRequest("A tool's message needs the tool_call_id.", param=f"{param}.tool_call_id")
    if message.content is None and not calls and not message.refusal:
        raise InvalidRequest(f"{param}.content: missing.", param=f"{param}.content")
    content = message.content if message.content is not None else message.refusal or ""
    return Message(message.role, message_content(content, f"{param}.content"), calls, message.tool_call_id or "")


def _refuse_unserved(message: ChatMessage, param: str) -> None:
    if message.audio is not None:
        raise UnsupportedParameter(f"{param}.audio: audio is not served.", param=f"{param}.audio")
    if message.function_call is not None:
        raise UnsupportedParameter(f"{param}.function_call: use tool_calls.", param=f"{param}.function_call")


def messages_of(items: Sequence[InputItem | ItemReference], param: str = "input", first: int = 0) -> list[Message]:
    """Calls that follow each other, or a text, are one message of the assistant, as chat templates want it.

    `first`: place of the first one in the list that `param` names. Raises InvalidRequest for content that
    can not be read, or that responses/references.py has not put there.
    """
    messages: list[Message] = []
    for i, item in enumerate(items, first):
        match item:
            case MessageItem():
                messages.append(Message(item.role, message_content(item.content, f"{param}[{i}].content")))
            case FunctionCallItem():
                call = ToolCall(item.call_id, item.name, item.arguments)
                last = messages[-1] if messages else None
                if last is not None and last.role == "assistant":
                    messages[-1] = Message("assistant", last.content, [*last.tool_calls, call])
                else:
                    messages.append(Message("assistant", "", [call]))
            case FunctionOutputItem():
                output = text_content(item.output, f"{param}[{i}].output")
                messages.append(Message("tool", output, [], item.call_id))
            case ReasoningItem():
                pass
            case ItemReference():
                raise InvalidRequest("An item can not be named here by its id.", param=f"{param}[{i}]")
    return messages
