"""API bodies as clients send them, and the one way to read them.

A body is JSON; errors name the path of the field. Parameters are known by name: one
that is not is refused (with the nearest name), unless a setting allows it; one that
OpenAI has and this server does not is refused unless its value asks for nothing.
"""

from __future__ import annotations

import difflib
import functools
import re
from typing import Any, TypeVar

import msgspec

from schemas.bodies import ConversationBody, ConversationItemsBody, ResponsesBody
from schemas.errors import InvalidRequest, UnsupportedParameter

AnyBody = TypeVar("AnyBody", bound=msgspec.Struct)

_ITEM_FIELDS: dict[type[msgspec.Struct], str] = {
    ResponsesBody: "input",
    ConversationBody: "items",
    ConversationItemsBody: "items",
}
"""Where a body has items, whose `type` may be left out."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    # parameters of OpenAI's that are not served, with the values that ask for nothing
    "audio": (),
    "background": (False,),
    "best_of": (1,),
    "conversation": (),
    "echo": (False,),
    "function_call": ("none",),
    "functions": ([],),
    "include": ([],),
    "logit_bias": ({},),
    "max_tool_calls": (),
    "modalities": (["text"],),
    "n": (1,),
    "prediction": (),
    "previous_response_id": (),
    "prompt": (),
    "prompt_cache_key": (),
    "reasoning": ({},),
    "reasoning_effort": (),
    "safety_identifier": (),
    "suffix": ("",),
    "truncation": ("disabled",),
    "verbosity": ("medium",),
    "web_search_options": (),
}


def parse_body(raw: bytes, kind: type[AnyBody], *, allow_unknown: bool) -> AnyBody:
    """The typed body; raises InvalidRequest or UnsupportedParameter with `param` set."""
    try:
        values = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidRequest(f"The body is not valid JSON: {exc}") from exc
    if not isinstance(values, dict):
        raise InvalidRequest("The body must be a JSON object.")
    known = _known_values(values, kind, allow_unknown=allow_unknown)
    field = next((name for body, name in _ITEM_FIELDS.items() if issubclass(kind, body)), "")
    if isinstance(known.get(field), list):
        known[field] = [_typed(item) for item in known[field]]
    try:
        return msgspec.convert(known, kind)
    except (msgspec.ValidationError, RecursionError, OverflowError) as exc:
        raise field_error(str(exc)) from exc


def _known_values(values: dict[str, Any], kind: type[msgspec.Struct], *, allow_unknown: bool) -> dict[str, Any]:
    fields = kind.__struct_encode_fields__
    known: dict[str, Any] = {}
    for name, value in values.items():
        if name in fields:
            if value is not None or name in _required(kind):
                known[name] = value
        elif name in _NEUTRAL:
            if value is not None and value not in _NEUTRAL[name]:
                raise UnsupportedParameter(f"{name!r} is not supported by this server with this value.", param=name)
        elif not allow_unknown:
            raise _unknown_parameter(name, fields)
    return known


@functools.cache
def _required(kind: type[msgspec.Struct]) -> frozenset[str]:
    """Fields that must be there: for these null is a value, right or wrong, and not the same as nothing."""
    return frozenset(field.name for field in msgspec.structs.fields(kind) if field.required)


def _typed(item: Any) -> Any:
    """An input item without a type is a message."""
    return {"type": "message"} | item if isinstance(item, dict) else item


def _unknown_parameter(name: str, fields: tuple[str, ...]) -> UnsupportedParameter:
    near = difflib.get_close_matches(name, fields, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UnsupportedParameter(f"Unknown parameter: {name[:100]!r}.{hint}", param=name[:100])


_PATH = re.compile(r" - at `\$\.?(.*)`$")
_MISSING = re.compile(r"missing required field `(.+?)`")


def field_error(message: str) -> InvalidRequest:
    """From msgspec's message, which ends with the path of the field."""
    found = _PATH.search(message)
    path = found[1] if found else ""
    missing = _MISSING.search(message)
    if missing:
        path = f"{path}.{missing[1]}".lstrip(".")
    text = _PATH.sub("", message)
    return InvalidRequest(f"{path}: {text}." if path else f"{text}.", param=path or None)
