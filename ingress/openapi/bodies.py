"""The schema of a request body: that of its type, and what `schemas/api.py` takes beside it."""

from __future__ import annotations

from typing import Any

import msgspec

from ingress.openapi.shapes import Schema, Shapes, parts_of
from schemas.api import neutral_values
from schemas.bodies import Body, ConversationBody, ConversationItemsBody, ConversationUpdateBody, MessageItem
from schemas.ui_messages import StopBody

_OURS = (Body, ConversationBody, ConversationItemsBody, ConversationUpdateBody)
"""Those that `schemas.api.parse_body` reads."""
_OPEN = (StopBody,)
"""Of these it takes unknown fields as well, and leaves them."""


def complete_bodies(shapes: Shapes, kinds: list[type[msgspec.Struct]]) -> None:
    """Write into the schemas of these bodies what their types do not say."""
    for kind in kinds:
        if issubclass(kind, _OURS):
            _complete(shapes.component(kind), kind)
        elif issubclass(kind, _OPEN):
            _allow_null(shapes.component(kind))
    _leave_type_out(shapes)


def _complete(schema: Schema, kind: type[msgspec.Struct]) -> None:
    """At the top, null is as good as nothing, what asks for nothing is taken, and all else is refused by name."""
    _allow_null(schema)
    for name, values in neutral_values(kind).items():
        schema["properties"][name] = {"enum": [*values, None], "description": "Not served beyond these values."}
    schema["additionalProperties"] = False


def _allow_null(schema: Schema) -> None:
    for name, shape in schema["properties"].items():
        if name not in schema["required"]:
            schema["properties"][name] = _or_null(shape)


def _or_null(schema: Schema) -> Schema:
    kept: Schema = {key: schema[key] for key in ("description", "default") if key in schema}
    bare = {key: value for key, value in schema.items() if key not in kept}
    if {"type": "null"} in bare.get("anyOf", ()):
        return schema
    options: list[Any] = bare["anyOf"] if set(bare) == {"anyOf"} else [bare]
    return {"anyOf": [*options, {"type": "null"}], **kept}


def _leave_type_out(shapes: Shapes) -> None:
    """An input item without a type is a message: then nothing tells items apart by their type alone."""
    shapes.component(MessageItem)["required"].remove("type")
    for schema in shapes.components.values():
        for part in parts_of(schema):
            if "message" in part.get("discriminator", {}).get("mapping", {}):
                del part["discriminator"]
