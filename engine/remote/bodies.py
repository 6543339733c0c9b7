"""Requests → bodies in OpenAI's format. What a request does not say is left to the upstream.

Who the caller's end user is (`user`, `safety_identifier`) is not passed on.
"""

from __future__ import annotations

from typing import Any

from engine.base import Generation
from schemas.errors import WorkerLost
from schemas.requests import (
    EmbeddingInput,
    GenerationRequest,
    ImageContent,
    Message,
    OutputFormat,
    TextContent,
)
from schemas.tools import Tool, ToolName


def chat_body(generation: Generation, limit_name: str) -> dict[str, Any]:
    """Chat completions; `limit_name` is what the upstream calls the maximum of tokens.

    A prefix goes as the last message, with what vLLM's server needs to go on with it instead of answering it.
    """
    request = generation.request
    messages = [_message(message) for message in request.prompt_messages()]
    body: dict[str, Any] = {"messages": messages, **_common(generation, limit_name), **_tools(request)}
    body |= _chat_only(request)
    if request.output_format is not None:
        body["response_format"] = _response_format(request.output_format)
    if request.logprobs:
        body["logprobs"] = True
        if request.top_logprobs:
            body["top_logprobs"] = request.top_logprobs
    if generation.prefix_text:
        messages.append({"role": "assistant", "content": generation.prefix_text})
        body |= {"add_generation_prompt": False, "continue_final_message": True}
    return body


def completion_body(generation: Generation) -> dict[str, Any]:
    """Legacy completions. Raises WorkerLost for a prefix after a prompt of token ids: there is no id for it."""
    request = generation.request
    prompt = request.prompt
    if generation.prefix_text:
        if not isinstance(prompt, str):
            raise WorkerLost
        prompt += generation.prefix_text
    body: dict[str, Any] = {"prompt": prompt, **_common(generation, "max_tokens")}
    if request.logprobs:
        body["logprobs"] = request.top_logprobs
    return body


def embedding_body(embedding: EmbeddingInput) -> dict[str, Any]:
    """Base64 is a quarter of the numbers in words; servers that do not know it send numbers."""
    body: dict[str, Any] = {"input": embedding.inputs, "encoding_format": "base64"}
    if embedding.dimensions is not None:
        body["dimensions"] = embedding.dimensions
    return body


def tokens_left(generation: Generation) -> int | None:
    """Of the maximum, counting each piece of the prefix as a token; None: there is no maximum."""
    limit = generation.request.max_output_tokens
    return None if limit is None else max(0, limit - generation.prefix_pieces)


def _common(generation: Generation, limit_name: str) -> dict[str, Any]:
    request = generation.request
    wanted = {
        limit_name: tokens_left(generation),
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop": request.stop or None,
        "seed": request.seed,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "logit_bias": {str(token): bias for token, bias in request.logit_bias.items()} or None,
        "stream_options": {"include_usage": True},
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _chat_only(request: GenerationRequest) -> dict[str, Any]:
    wanted = {
        "reasoning_effort": request.reasoning_effort,
        "verbosity": None if request.verbosity == "medium" else request.verbosity,
        "prompt_cache_key": request.prompt_cache_key,
        "prompt_cache_retention": request.prompt_cache_retention,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _message(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": _content(message)}
    if message.tool_calls:
        body["content"] = body["content"] or None
        body["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        body["tool_call_id"] = message.tool_call_id
    return body


def _content(message: Message) -> str | list[dict[str, Any]]:
    """Text alone is one string: not every server takes parts."""
    if not any(isinstance(part, ImageContent) for part in message.parts):
        return message.text
    return [_part(part) for part in message.parts]


def _part(part: TextContent | ImageContent) -> dict[str, Any]:
    if isinstance(part, TextContent):
        return {"type": "text", "text": part.text}
    url = {"url": part.url} | ({"detail": part.detail} if part.detail != "auto" else {})
    return {"type": "image_url", "image_url": url}


def _tools(request: GenerationRequest) -> dict[str, Any]:
    if not request.tools:
        return {}
    body: dict[str, Any] = {"tools": [{"type": "function", "function": _function(tool)} for tool in request.tools]}
    choice = request.tool_choice
    if isinstance(choice, ToolName):
        body["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    elif choice != "auto":
        body["tool_choice"] = choice
    if not request.parallel_tool_calls:
        body["parallel_tool_calls"] = False
    return body


def _function(tool: Tool) -> dict[str, Any]:
    body = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }
    return {name: value for name, value in body.items() if value is not None}


def _response_format(wanted: OutputFormat) -> dict[str, Any]:
    if wanted.schema is None:
        return {"type": "json_object"}
    body = {
        "name": wanted.name or "output",
        "description": wanted.description,
        "schema": wanted.schema,
        "strict": wanted.strict,
    }
    return {"type": "json_schema", "json_schema": {name: value for name, value in body.items() if value is not None}}
