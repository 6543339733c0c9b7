"""A request as vLLM's own OpenAI server would serve it: template, parsers, sampling parameters.

All of it is vLLM's server code without its HTTP, so that a request means here what it means there:
the chat template with tools and images, the grammar of a forced tool call, the model's own
sampling defaults.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import msgspec
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.renderers.chat_utils import load_chat_template
from vllm.renderers.hf import HfRenderer, resolve_chat_template, resolve_chat_template_kwargs
from vllm.renderers.online_renderer import OnlineRenderer

from engine.vllm.library import Options
from schemas.errors import InvalidRequest
from schemas.requests import GenerationRequest, ImageContent, Message, TextContent
from schemas.tools import Tool, ToolName

_EFFORT_VARIABLES = ("reasoning_effort", "enable_thinking")
"""In vLLM's templates an effort is the first; any but `none` turns on the second as well."""
_REASONING_RENDERERS = {
    "CohereRenderer",
    "DeepseekV32Renderer",
    "DeepseekV4Renderer",
    "InklingRenderer",
    "KimiK3Renderer",
}
"""Without a template in Jinja, and they look at it."""


class _ChatRequest(ChatCompletionRequest):  # type: ignore[misc]
    def build_tok_params(self, model_config: Any) -> Any:
        """Without vLLM's limit on the prompt: ours counts the prefix too, and names both numbers."""
        return dataclasses.replace(super().build_tok_params(model_config), max_total_tokens=None)


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """A request, ready for the engine apart from its limit of tokens."""

    input: dict[str, Any]
    """vLLM's rendered input: token ids, and images where there are some."""
    chat: Any
    parser: Any = None
    """vLLM's parser for this one stream; None: all output is text."""
    options: dict[str, Any] = {}
    """More arguments for `AsyncLLM.generate`."""

    @property
    def ids(self) -> list[int]:
        ids: list[int] = self.input["prompt_token_ids"]
        return ids

    def followed_by(self, prefix: Sequence[int]) -> dict[str, Any]:
        """The input with these ids behind it."""
        return {**self.input, "prompt_token_ids": [*self.ids, *prefix]}


class PromptRenderer:
    """Makes prompts for one engine."""

    def __init__(self, engine: Any, options: Options) -> None:
        """Raises ValueError, TypeError or OSError for a parser or template that can not be used."""
        self._config = engine.model_config
        self._tokenizer = engine.get_tokenizer()
        self._defaults: dict[str, Any] = self._config.get_diff_sampling_param()
        self._renderer = OnlineRenderer(
            self._config,
            engine.renderer,
            request_logger=None,
            chat_template=load_chat_template(options.chat_template or None),
            chat_template_content_format="auto",
            enable_auto_tools=bool(options.tool_parser),
            tool_parser=options.tool_parser or None,
            reasoning_parser=options.reasoning_parser or None,
            default_chat_template_kwargs=options.chat_template_kwargs,
        )

    @property
    def default_limit(self) -> int | None:
        """Output tokens that the model's own generation config allows."""
        return self._defaults.get("max_tokens")

    @property
    def takes_reasoning_effort(self) -> bool:
        """The model's template does something with it; one that does not is never told of it by vLLM."""
        renderer = self._renderer.renderer
        if not isinstance(renderer, HfRenderer):
            return type(renderer).__name__ in _REASONING_RENDERERS
        template = resolve_chat_template(self._tokenizer, self._renderer.chat_template, None, model_config=self._config)
        return template is not None and bool(
            resolve_chat_template_kwargs(self._tokenizer, template, dict.fromkeys(_EFFORT_VARIABLES))
        )

    async def render(self, request: GenerationRequest) -> Prompt:
        """Raises InvalidRequest, or vLLM's errors."""
        chat = _ChatRequest(**_chat_body(request))
        if request.prompt is not None:
            return Prompt(input=await self.bare(request.prompt), chat=chat)
        rendered = await self._renderer.render_chat(chat)
        if not isinstance(rendered, tuple):
            raise InvalidRequest(rendered.error.message)
        (found,) = rendered[1]
        if not self._is_parsed(chat):
            return Prompt(input=found, chat=chat)
        kwargs = self._renderer.effective_chat_template_kwargs(chat)
        parser = self._renderer.parser(
            self._tokenizer, chat.tools, chat_template_kwargs=kwargs, model_config=self._config
        )
        options = {"reasoning_ended": chat.resolve_reasoning_ended(parser, found["prompt_token_ids"])}
        if parser.reasoning_parser is not None:
            options["reasoning_parser_kwargs"] = {"chat_template_kwargs": kwargs}
        return Prompt(input=found, chat=chat, parser=parser, options=options)

    def params(self, prompt: Prompt, limit: int) -> Any:
        """SamplingParams that leave the text to us: ids come at once, stop strings are ours."""
        params = prompt.chat.to_sampling_params(limit, self._defaults)
        params.stop = []
        params.detokenize = False
        return params

    async def bare(self, text: str | list[int]) -> dict[str, Any]:
        """The input that is this text, or these ids, without a template."""
        (found,) = await self._renderer.preprocess_cmpl(_ChatRequest(messages=[], add_special_tokens=True), [text])
        rendered: dict[str, Any] = found
        return rendered

    def _is_parsed(self, chat: Any) -> bool:
        parser = self._renderer.parser
        if parser is None:
            return False
        return bool(chat.tools) or parser.reasoning_parser_cls is not None or parser.always_adjust_request


def _chat_body(request: GenerationRequest) -> dict[str, Any]:
    wanted = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "stop": request.stop or None,
        "top_logprobs": request.top_logprobs if request.logprobs else None,
        "response_format": _response_format(request),
        "logit_bias": {str(token): bias for token, bias in request.logit_bias.items()} or None,
        "reasoning_effort": request.reasoning_effort,
    }
    fixed: dict[str, Any] = {
        "messages": [_message(message) for message in request.prompt_messages()],
        "logprobs": request.logprobs,
        "stream": True,
        **_tools(request),
    }
    return fixed | {name: value for name, value in wanted.items() if value is not None}


def _tools(request: GenerationRequest) -> dict[str, Any]:
    if not request.tools:
        return {}
    choice: Any = request.tool_choice
    if isinstance(choice, ToolName):
        choice = {"type": "function", "function": {"name": choice.name}}
    return {
        "tools": [_tool(tool, must_call=request.tool_choice not in ("auto", "none")) for tool in request.tools],
        "tool_choice": choice,
        "parallel_tool_calls": request.parallel_tool_calls,
    }


def _tool(tool: Tool, *, must_call: bool) -> dict[str, Any]:
    function = {name: value for name, value in msgspec.to_builtins(tool).items() if value is not None}
    if must_call:
        function["strict"] = True  # else vLLM holds the call to its envelope alone, and arguments to any JSON
        function["parameters"] = {"additionalProperties": False} | (tool.parameters or {"type": "object"})
    return {"type": "function", "function": function}


def _response_format(request: GenerationRequest) -> dict[str, Any] | None:
    wanted = request.output_format
    if wanted is None:
        return None
    if wanted.schema is None:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": wanted.name or "output", "schema": wanted.schema}}


def _message(message: Message) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role
    body: dict[str, Any] = {"role": role, "content": _content(message)}
    if message.tool_calls:
        body["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        body["tool_call_id"] = message.tool_call_id
    return body


def _content(message: Message) -> str | list[dict[str, Any]]:
    if not any(isinstance(part, ImageContent) for part in message.parts):
        return message.text
    return [_part(part) for part in message.parts]


def _part(part: TextContent | ImageContent) -> dict[str, Any]:
    if isinstance(part, TextContent):
        return {"type": "text", "text": part.text}
    if not part.url.startswith("data:"):  # vLLM would fetch it, from wherever
        raise InvalidRequest("images must be data: URLs", param="image_url")
    return {"type": "image_url", "image_url": {"url": part.url, "detail": part.detail}}
