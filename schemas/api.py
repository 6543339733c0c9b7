"""API bodies as clients send them, and the one way to read them.

A body is JSON; errors name the path of the field. Parameters are known by name (schemas/parameters.py): one that is
unknown, or that is not served with this value, is refused, or left out where the setting says `warn`.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from schemas.bodies import ConversationBody, ConversationItemsBody, ResponsesBody
from schemas.decoding import decode_body
from schemas.errors import InvalidRequest, UnsupportedParameter
from schemas.field_errors import field_error
from schemas.parameters import OPTIONS, UNSERVED, asks_for_nothing, is_one_of, is_option_object, routes_of
from schemas.settings import Unsupported

AnyBody = TypeVar("AnyBody", bound=msgspec.Struct)
_MAX_NAME = 100

_ITEM_FIELDS: dict[type[msgspec.Struct], str] = {
    ResponsesBody: "input",
    ConversationBody: "items",
    ConversationItemsBody: "items",
}
"""Where a body has items, whose `type` may be left out."""
_TOOL_FIELDS = [name.removeprefix("tools[].") for name in UNSERVED if name.startswith("tools[].")]


class Parsed(NamedTuple, Generic[AnyBody]):
    """A body, and the parameters of it that were left out, by name; only where the setting says `warn`."""

    body: AnyBody
    ignored: list[str]


def parse_body(raw: bytes, kind: type[AnyBody], *, unsupported: Unsupported) -> Parsed[AnyBody]:
    """The typed body; raises InvalidRequest or UnsupportedParameter with `param` set."""
    values = decode_body(raw)
    if not isinstance(values, dict):
        raise InvalidRequest("The body must be a JSON object.")
    ignored: list[str] = []
    known = _known_values(values, kind, "", _refuse if unsupported == "reject" else _noting(ignored))
    field = next((name for body, name in _ITEM_FIELDS.items() if issubclass(kind, body)), "")
    if isinstance(known.get(field), list):
        known[field] = [_typed(item) for item in known[field]]
    try:
        return Parsed(msgspec.convert(known, kind), ignored)
    except (msgspec.ValidationError, RecursionError, OverflowError) as exc:
        raise field_error(str(exc)) from exc


_LeaveOut = Callable[[str, type[msgspec.Struct] | None], None]
"""Called with the path of a parameter that is not served, and the type of what it stands in; may raise."""


def _refuse(path: str, kind: type[msgspec.Struct] | None) -> None:
    raise _refusal(path, kind)


def _noting(ignored: list[str]) -> _LeaveOut:
    return lambda path, kind: ignored.append(path[:_MAX_NAME])


def _known_values(
    values: dict[str, Any], kind: type[msgspec.Struct] | None, before: str, leave_out: _LeaveOut
) -> dict[str, Any]:
    """What is served of them. `before`: the path up to their names; `kind` None: nothing is."""
    known: dict[str, Any] = {}
    for name, value in values.items():
        path = before + name
        if value is None:
            if kind is not None and name in _required(kind):
                known[name] = None
            continue
        if isinstance(value, dict) and not before and is_option_object(name):
            value = _known_values(value, OPTIONS.get(name), f"{name}.", leave_out)
        if kind is not None and name in kind.__struct_encode_fields__:
            known[name] = value
        elif not _is_neutral(path, value):
            leave_out(path, kind)
    if not before:
        _look_at_tools(known, leave_out)
    return known


@functools.cache
def _required(kind: type[msgspec.Struct]) -> frozenset[str]:
    """Fields that must be there: for these null is a value, right or wrong, and not the same as nothing."""
    return frozenset(field.encode_name for field in msgspec.structs.fields(kind) if field.required)


def _is_neutral(path: str, value: Any) -> bool:
    """It asks for nothing: served or not, the answer is the same."""
    if path in UNSERVED:
        return is_one_of(value, UNSERVED[path].neutral)
    return value == {} if is_option_object(path) else asks_for_nothing(path, value)


def _look_at_tools(known: dict[str, Any], leave_out: _LeaveOut) -> None:
    """Their fields that change what a call is; others that are not known are descriptions."""
    tools = known.get("tools")
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        for name in _TOOL_FIELDS if isinstance(tool, dict) else ():
            value = tool.get(name)
            if value is not None and not is_one_of(value, UNSERVED[f"tools[].{name}"].neutral):
                leave_out(f"tools[{index}].{name}", None)


def _typed(item: Any) -> Any:
    """An input item without a type is a message, or names another one by its id alone."""
    if not isinstance(item, dict):
        return item
    return {"type": "item_reference" if item.keys() == {"id"} else "message"} | item


def _refusal(path: str, kind: type[msgspec.Struct] | None) -> UnsupportedParameter:
    shown = path[:_MAX_NAME]
    unserved = UNSERVED.get("tools[]." + path.rpartition(".")[2] if path.startswith("tools[") else path)
    if unserved is not None:
        value = " with this value" if unserved.neutral else ""
        return UnsupportedParameter(f"{shown!r} is not supported by this server{value}: {unserved.hint}.", param=shown)
    if routes := routes_of(path):
        return UnsupportedParameter(f"{shown!r} is a parameter of {', '.join(routes)}, not of this.", param=shown)
    names = kind.__struct_encode_fields__ if kind is not None else ()
    near = difflib.get_close_matches(path.rpartition(".")[2], names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UnsupportedParameter(f"Unknown parameter: {shown!r}.{hint}", param=shown)
