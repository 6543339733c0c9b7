"""The least JSON value that a simple schema allows."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from schemas.errors import InvalidRequest

_LEAST: dict[str, Any] = {"null": None, "boolean": True}
_BOUNDS: dict[str, tuple[int, Callable[[float, float], bool]]] = {
    "minimum": (0, operator.ge),
    "exclusiveMinimum": (1, operator.gt),
    "maximum": (0, operator.le),
    "exclusiveMaximum": (-1, operator.lt),
}
"""Bound of a number → what to add to it, and how the number must stand to it."""
_MAX_DEPTH = 32
_MAX_ITEMS = 1_000
_TOO_HARD = (
    *("allOf", "not", "if", "pattern", "format", "multipleOf", "uniqueItems", "contains", "prefixItems"),
    *("minProperties", "patternProperties", "propertyNames", "dependentRequired", "dependentSchemas", "$dynamicRef"),
)


def least_value(schema: dict[str, Any]) -> Any:
    """Raises InvalidRequest for what is no schema, or none that this engine can serve."""
    return _least(schema, schema, 0)


def _least(schema: Any, root: dict[str, Any], depth: int) -> Any:
    if schema is True or schema == {}:
        return None
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        raise _refusal("a schema without an end" if isinstance(schema, dict) else repr(schema)[:100])
    hard = next((word for word in _TOO_HARD if word in schema), None)
    if hard is not None:
        raise _refusal(hard)
    if "$ref" in schema:
        return _least(_found(schema["$ref"], root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list) and schema[word]:
            return _least(schema[word][0], root, depth + 1)
    return _of_type(schema, root, depth)


def _of_type(schema: dict[str, Any], root: dict[str, Any], depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else None)
    if isinstance(kind, list) and kind:
        kind = kind[0]
    match kind:
        case "object":
            return _least_object(schema, root, depth)
        case "array":
            return [_least(schema.get("items", {}), root, depth + 1)] * _count(schema, "minItems")
        case "string":
            return "x" * _count(schema, "minLength")
        case "integer" | "number":
            return _least_number(schema, is_whole=kind == "integer")
        case "null" | "boolean":
            return _LEAST[kind]
    raise _refusal(f"type {kind!r}")


def _least_object(schema: dict[str, Any], root: dict[str, Any], depth: int) -> dict[str, Any]:
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list):
        raise _refusal("properties")
    return {str(name): _least(properties.get(name, {}), root, depth + 1) for name in required}


def _least_number(schema: dict[str, Any], *, is_whole: bool) -> float:
    """At the first bound that is given; refused where that breaks another one."""
    bounds = {word: schema[word] for word in _BOUNDS if word in schema}
    if not all(isinstance(bound, int | float) for bound in bounds.values()):
        raise _refusal("bounds of a number")
    found: float = next(
        (bound + step for word, (step, _) in _BOUNDS.items() if (bound := bounds.get(word)) is not None), 0
    )
    if is_whole:
        found = math.floor(found) if "minimum" not in bounds and "exclusiveMinimum" not in bounds else math.ceil(found)
    if not all(holds(found, bounds[word]) for word, (_, holds) in _BOUNDS.items() if word in bounds):
        raise _refusal("bounds that are close together")
    return found


def _count(schema: dict[str, Any], word: str) -> int:
    count = schema.get(word, 0)
    if not isinstance(count, int) or not 0 <= count <= _MAX_ITEMS:
        raise _refusal(word)
    return count


def _found(reference: Any, root: dict[str, Any]) -> Any:
    place: Any = root
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise _refusal(f"$ref {reference!r}")
    for name in reference[1:].split("/")[1:]:
        if not isinstance(place, dict) or name not in place:
            raise _refusal(f"$ref {reference!r}")
        place = place[name]
    return place


def _refusal(what: str) -> InvalidRequest:
    return InvalidRequest(f"The synthetic engine can not serve this JSON schema: {what[:200]}.", param="schema")
