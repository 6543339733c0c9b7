"""A value that fits a JSON schema, made of what a prompt offers."""

from __future__ import annotations

import re
from typing import Any

from engine.synthetic.least_json import least_value

_QUOTED = re.compile(r"(?<!\w)(?:'([^']+)'|\"([^\"]+)\"|`([^`]+)`)(?!\w)")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_NAME = re.compile(r"(?<=\s)[A-Z]\w+(?:,? [A-Z]\w+)*")
_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "email": "somebody@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_SHOWN_WORDS = 6
_MAX_DEPTH = 16
"""Then a schema that contains itself is ended as the synthetic engine ends it."""


class Offer:
    """What a prompt has for arguments; each is given once, in its order."""

    def __init__(self, prompt: str) -> None:
        self.prompt = prompt
        self.quoted = ["".join(groups) for groups in _QUOTED.findall(prompt)]
        self._texts = self.quoted or _NAME.findall(prompt)
        self._numbers = [float(text) if "." in text else int(text) for text in _NUMBER.findall(prompt)]

    def text(self, name: str) -> str:
        """The next that is quoted, or a name; else the last words, which say what they stand for."""
        return self._texts.pop(0) if self._texts else f"{name}: {' '.join(self.prompt.split()[-_SHOWN_WORDS:])}"

    def number(self, schema: dict[str, Any]) -> float:
        """The next that fits, or the least that does."""
        for number in self._numbers:
            if _fits(number, schema):
                self._numbers.remove(number)
                return number
        return float(found) if isinstance(found := least_value(schema), float) else int(found)


def _fits(number: float, schema: dict[str, Any]) -> bool:
    if schema.get("type") == "integer" and not isinstance(number, int):
        return False
    return (
        schema.get("minimum", number) <= number <= schema.get("maximum", number)
        and schema.get("exclusiveMinimum", number - 1) < number < schema.get("exclusiveMaximum", number + 1)
        and not ("multipleOf" in schema and number % schema["multipleOf"])
    )


def value_for(schema: dict[str, Any], offer: Offer) -> Any:
    """Raises InvalidRequest for what is no schema, or one that it can not serve."""
    return _Filler(schema, offer).value(schema, "value", 0)


class _Filler:
    def __init__(self, root: dict[str, Any], offer: Offer) -> None:
        self._root = root
        self._offer = offer

    def value(self, schema: Any, name: str, depth: int) -> Any:
        if not isinstance(schema, dict) or not schema or depth > _MAX_DEPTH:
            return least_value(schema)
        if "$ref" in schema:
            return self.value(self._found(schema["$ref"]), name, depth + 1)
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            return next((one for one in schema["enum"] if str(one) in self._offer.prompt), schema["enum"][0])
        for word in ("anyOf", "oneOf", "allOf"):
            branches = schema.get(word)
            if isinstance(branches, list) and branches and (word != "allOf" or len(branches) == 1):
                return self.value(next((one for one in branches if not _is_null(one)), branches[0]), name, depth + 1)
        return self._of_type(schema, name, depth)

    def _of_type(self, schema: dict[str, Any], name: str, depth: int) -> Any:
        kind = schema.get("type", "object" if "properties" in schema else None)
        if isinstance(kind, list):
            kind = next((one for one in kind if one != "null"), None)
        if kind == "object" and isinstance(schema.get("properties"), dict):
            required = [key for key in schema.get("required", []) if key in schema["properties"]]
            return {key: self.value(schema["properties"][key], key, depth + 1) for key in required}
        if kind == "array" and isinstance(schema.get("items"), dict):
            count = max(schema.get("minItems", 1), min(1, schema.get("maxItems", 1)))
            return [self.value(schema["items"], name, depth + 1) for _ in range(count)]
        if kind == "string" and "pattern" not in schema:
            return self._text(schema, name)
        if kind in ("integer", "number"):
            return self._offer.number(schema | {"type": kind})
        return least_value(schema | {"type": kind} if kind else schema)

    def _text(self, schema: dict[str, Any], name: str) -> str:
        text = _FORMATS.get(schema.get("format", "")) or self._offer.text(name)
        return text.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]

    def _found(self, reference: Any) -> Any:
        place: Any = self._root
        for part in str(reference).removeprefix("#").split("/")[1:]:
            place = place.get(part) if isinstance(place, dict) else None
        return place


def _is_null(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("type") == "null"
