"""JSON schemas of msgspec types, as a document of OpenAPI 3.1 wants them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import inspect as types

from ingress.openapi.docstrings import field_docstrings

Schema = dict[str, Any]
_REFERENCE = "#/components/schemas/{name}"


class Shapes:
    """The schemas of some types, with those that they are made of as components."""

    def __init__(self, kinds: Iterable[Any]) -> None:
        """`kinds`: everything that `of` will be asked for."""
        unique = list(dict.fromkeys(kinds))
        schemas, self.components = msgspec.json.schema_components(unique, ref_template=_REFERENCE)
        self._schemas = dict(zip(unique, schemas, strict=True))
        for schema in (*schemas, *self.components.values()):
            _write_patterns(schema)
        for cls in _structs(types.multi_type_info(unique)):
            self._describe(cls)

    def of(self, kind: Any) -> Schema:
        """A reference, for what has a name."""
        return dict(self._schemas[kind])

    def component(self, cls: type) -> Schema:
        """The schema behind the reference; what is changed in it is changed everywhere."""
        name = cls.__name__  # msgspec writes the module before it where two have the same
        schema: Schema = self.components[name if name in self.components else f"{cls.__module__}.{cls.__qualname__}"]
        return schema

    def _describe(self, cls: type) -> None:
        schema = self.component(cls)
        for field, text in field_docstrings(cls).items():
            if field in schema.get("properties", {}):
                schema["properties"][field].setdefault("description", text)


def _structs(infos: Iterable[types.Type]) -> list[Any]:
    """Every struct in these types, each once."""
    found: dict[Any, None] = {}
    waiting = list(infos)
    while waiting:
        match waiting.pop():
            case types.StructType(cls=cls, fields=fields):
                if cls not in found:
                    found[cls] = None
                    waiting += [field.type for field in fields]
            case types.UnionType(types=members):
                waiting += members
            case types.ListType(item_type=item) | types.VarTupleType(item_type=item) | types.Metadata(type=item):
                waiting.append(item)
            case types.DictType(value_type=value):
                waiting.append(value)
    return list(found)


def parts_of(schema: Any) -> Iterator[Schema]:
    """Every object in a schema, itself included."""
    if isinstance(schema, dict):
        yield schema
    if isinstance(schema, dict | list):
        for part in schema.values() if isinstance(schema, dict) else schema:
            yield from parts_of(part)


def _write_patterns(schema: Schema) -> None:
    """Python's `\\A` and `\\Z` are `^` and `$` of ECMA 262, which knows no others and means the same by them."""
    for part in parts_of(schema):
        if isinstance(part.get("pattern"), str):
            part["pattern"] = re.sub(r"\\Z$", "$", re.sub(r"^\\A", "^", part["pattern"]))
