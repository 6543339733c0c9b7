"""API bodies as clients send them, and the one way to read them.

A body is JSON; errors name the path of the field. Parameters are known by name: one
that is not is refused (with the nearest name), unless a setting allows it; one that
OpenAI has and this server does not is refused unless its value asks for nothing.
"""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from schemas.errors import InvalidRequest, UnsupportedParameter

_Text = Annotated[str, Meta(max_length=4_000_000)]
_ShortText = Annotated[str, Meta(max_length=512)]
_Temperature = Annotated[float, Meta(ge=0, le=2)]
_TopP = Annotated[float, Meta(ge=0, le=1)]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Tokens = Annotated[int, Meta(ge=1, le=10_000_000)]
_Seed = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
_StopText = Annotated[str, Meta(min_length=1, max_length=200)]
_Stop = _StopText | Annotated[list[_StopText], Meta(max_length=4)]
_Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]


class TextPart(msgspec.Struct, frozen=True):
    """A content part; text is the only kind that is served."""

    type: Literal["text", "input_text", "output_text"]
    text: _Text


_Content = _Text | list[TextPart]


class BodyMessage(msgspec.Struct, frozen=True):
    """A message of chat completions, or an input item of the Responses API."""

    role: Literal["system", "developer", "user", "assistant"]
    content: _Content
    type: Literal["message"] = "message"


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False
    include_obfuscation: bool = False


_Messages = Annotated[list[BodyMessage], Meta(min_length=1, max_length=10_000)]


class ChatBody(msgspec.Struct, frozen=True, kw_only=True):
    """POST /v1/chat/completions."""

    model: _ShortText
    messages: _Messages
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
    metadata: _Metadata = {}
    user: _ShortText | None = None


class ResponsesBody(msgspec.Struct, frozen=True, kw_only=True):
    """POST /v1/responses."""

    model: _ShortText
    input: _Text | _Messages
    instructions: _Text | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    max_output_tokens: _Tokens | None = None
    temperature: _Temperature | None = None
    top_p: _TopP | None = None
    metadata: _Metadata = {}
    user: _ShortText | None = None
    background: bool = False


Body = TypeVar("Body", bound=ChatBody | ResponsesBody)

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    # parameters of OpenAI's that are not served, with the values that ask for nothing
    "audio": (),
    "background": (False,),
    "conversation": (),
    "function_call": ("none",),
    "functions": ([],),
    "include": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "max_tool_calls": (),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "previous_response_id": (),
    "prompt": (),
    "prompt_cache_key": (),
    "reasoning": ({},),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "safety_identifier": (),
    "service_tier": ("auto", "default"),
    "store": (True,),
    "text": ({}, {"format": {"type": "text"}}),
    "tool_choice": ("auto", "none"),
    "tools": ([],),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
    "verbosity": ("medium",),
    "web_search_options": (),
}


def parse_body(raw: bytes, kind: type[Body], *, allow_unknown: bool) -> Body:
    """The typed body; raises InvalidRequest or UnsupportedParameter with `param` set."""
    try:
        values = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidRequest(f"The body is not valid JSON: {exc}") from exc
    if not isinstance(values, dict):
        raise InvalidRequest("The body must be a JSON object.")
    known = _known_values(values, kind, allow_unknown=allow_unknown)
    try:
        return msgspec.convert(known, kind)
    except (msgspec.ValidationError, RecursionError, OverflowError) as exc:
        raise _field_error(str(exc)) from exc


def _known_values(values: dict[str, Any], kind: type[Body], *, allow_unknown: bool) -> dict[str, Any]:
    fields = kind.__struct_fields__
    known: dict[str, Any] = {}
    for name, value in values.items():
        if name in fields:
            if value is not None:
                known[name] = value
        elif name in _NEUTRAL:
            if value is not None and value not in _NEUTRAL[name]:
                raise UnsupportedParameter(f"{name!r} is not supported by this server with this value.", param=name)
        elif not allow_unknown:
            raise _unknown_parameter(name, fields)
    return known


def _unknown_parameter(name: str, fields: tuple[str, ...]) -> UnsupportedParameter:
    near = difflib.get_close_matches(name, fields, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UnsupportedParameter(f"Unknown parameter: {name[:100]!r}.{hint}", param=name[:100])


_PATH = re.compile(r" - at `\$\.?(.*)`$")
_MISSING = re.compile(r"missing required field `(.+?)`")


def _field_error(message: str) -> InvalidRequest:
    """From msgspec's message, which ends with the path of the field."""
    found = _PATH.search(message)
    path = found[1] if found else ""
    missing = _MISSING.search(message)
    if missing:
        path = f"{path}.{missing[1]}".lstrip(".")
    text = _PATH.sub("", message)
    return InvalidRequest(f"{path}: {text}." if path else f"{text}.", param=path or None)
