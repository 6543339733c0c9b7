"""The schema of a request body: that of its type, and what `schemas/api.py` takes beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ingress.openapi.shapes import Schema, Shapes, parts_of
from schemas.bodies import (
    FIXED_IN_FORKS,
    Body,
    ChatCompletionUpdateBody,
    ChatTool,
    ConversationBody,
    ConversationItemsBody,
    ConversationUpdateBody,
    ForkBody,
    ItemReference,
    MessageItem,
    ResponsesTool,
)
from schemas.parameters import OPTIONS, UNSERVED, neutral_values, option_objects, unserved_of_tools
from schemas.ui_messages import StopBody

_OURS = (
    Body,
    ChatCompletionUpdateBody,
    ConversationBody,
    ConversationItemsBody,
    ConversationUpdateBody,
    ForkBody,
)
"""Those that `schemas.api.parse_body` reads."""
_OPEN = (StopBody,)
"""Of these it takes unknown fields as well, and leaves them."""


_TOOLS = (ChatTool, ResponsesTool)
_NOTHING = "Asks for nothing with these values, and has no others here."


def complete_bodies(shapes: Shapes, kinds: Iterable[type[msgspec.Struct]]) -> None:
    """Write into the schemas of these bodies what their types do not say."""
    unserved = option_objects()
    for name, kind in OPTIONS.items():
        _complete(shapes.component(kind), unserved[name])
    for kind in kinds:
        if issubclass(kind, _OURS):
            _complete_body(shapes.component(kind), kind)
        elif issubclass(kind, _OPEN):
            _allow_null(shapes.component(kind))
    for kind in _TOOLS:
        shapes.component(kind)["properties"] |= {name: _only(name, values) for name, values in unserved_of_tools()}
    _leave_type_out(shapes)


def _complete_body(schema: Schema, kind: type[msgspec.Struct]) -> None:
    """What other routes serve, or OpenAI, is taken where it asks for nothing."""
    fields = kind.__struct_encode_fields__
    fixed = FIXED_IN_FORKS if kind is ForkBody else frozenset()
    for name, unserved in option_objects().items():
        if name not in fields:
            served = dict.fromkeys(OPTIONS[name].__struct_encode_fields__, ()) if name in OPTIONS else {}
            empty: Schema = {"type": "object", "properties": {}, "description": _NOTHING}
            _complete(empty, unserved | served)
            schema["properties"][name] = _or_null(empty) if name not in fixed else _only(name, ())
    _complete(schema, {name: () if name in fixed else values for name, values in neutral_values(kind).items()})


def _complete(schema: Schema, neutral: Mapping[str, Iterable[Any]]) -> None:
    """At the top, and in option objects, null is as good as nothing, and an unknown name is refused."""
    _allow_null(schema)
    schema["properties"] |= {name: _only(name, values) for name, values in neutral.items()}
    schema["additionalProperties"] = False


def _only(name: str, values: Iterable[Any]) -> Schema:
    hint = UNSERVED[name].hint if name in UNSERVED else ""
    return {"enum": [*values, None], "description": f"Not served: {hint}." if hint else _NOTHING}


def _allow_null(schema: Schema) -> None:
    for name, shape in schema["properties"].items():
        if name not in schema.get("required", ()):
            schema["properties"][name] = _or_null(shape)


def _or_null(schema: Schema) -> Schema:
    kept: Schema = {key: schema[key] for key in ("description", "default") if key in schema}
    bare = {key: value for key, value in schema.items() if key not in kept}
    if {"type": "null"} in bare.get("anyOf", ()):
        return schema
    options: list[Any] = bare["anyOf"] if set(bare) == {"anyOf"} else [bare]
    return {"anyOf": [*options, {"type": "null"}], **kept}


def _leave_type_out(shapes: Shapes) -> None:
    """An input item without a type is a message, or an id alone: then nothing tells items apart by their type alone."""
    shapes.component(MessageItem)["required"].remove("type")
    reference = shapes.component(ItemReference)
    reference["required"].remove("type")
    reference["anyOf"] = [{"required": ["type"]}, {"maxProperties": 1}]
    for schema in shapes.components.values():
        for part in parts_of(schema):
            if "message" in part.get("discriminator", {}).get("mapping", {}):
                del part["discriminator"]
