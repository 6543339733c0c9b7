"""Every parameter of OpenAI's API: served, or known and not served; docs/api.md holds the table made from here.

Served are the fields of the bodies (schemas/bodies.py). `UNSERVED` has the others: each is taken where its value
asks for nothing, and else refused by name, or left out with a warning. A test reads the parameters of
the official client, so that one which a new version brings is seen.

A name with a dot is a field of an option object, one with `[].` of the members of a list.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from schemas.bodies import (
    ChatBody,
    CompletionsBody,
    ConversationBody,
    EmbeddingsBody,
    ReasoningOptions,
    ResponsesBody,
    StreamOptions,
    TextOptions,
)

ROUTES: dict[str, type[msgspec.Struct]] = {
    "/v1/chat/completions": ChatBody,
    "/v1/responses": ResponsesBody,
    "/v1/completions": CompletionsBody,
    "/v1/embeddings": EmbeddingsBody,
    "/v1/conversations": ConversationBody,
}
OPTIONS: dict[str, type[msgspec.Struct]] = {
    "reasoning": ReasoningOptions,
    "stream_options": StreamOptions,
    "text": TextOptions,
}
"""Fields of bodies that are objects with parameters in them."""


class Unserved(msgspec.Struct, frozen=True):
    """A parameter of OpenAI's that is not served here."""

    hint: str
    """What to do instead, or why."""
    neutral: tuple[Any, ...] = ()
    """The values that ask for nothing; null always does."""


_CHAT_TEXT = "only text comes out"
_SUMMARY = "no summaries are made here; the reasoning itself is in the output"
_USE_TOOLS = "use tools and tool_choice"
_CACHE = "how long the engine's cache keeps a prompt can not be promised"

UNSERVED: dict[str, Unserved] = {
    "access_programs": Unserved("there are none here"),
    "audio": Unserved(_CHAT_TEXT),
    "background_options.completion_window": Unserved("the batch API is for work that may wait", ("soonest",)),
    "background_options.continuation_id": Unserved("requests of a lane are served in their order"),
    "context_management": Unserved("truncation: auto leaves out what does not fit", ([],)),
    "echo": Unserved("the prompt is not said again", (False,)),
    "function_call": Unserved(_USE_TOOLS, ("none", "auto")),
    "functions": Unserved(_USE_TOOLS, ([],)),
    "image.context_compression": Unserved("images are not compressed", ("auto", "disabled")),
    "modalities": Unserved(_CHAT_TEXT, (["text"],)),
    "moderation": Unserved("nothing is moderated here"),
    "prediction": Unserved("no engine here makes use of it"),
    "prompt": Unserved("there are no stored prompts here: send instructions and input"),
    "prompt_cache_options.comparison_response_id": Unserved("the engines do not say why a prompt was not cached"),
    "prompt_cache_options.mode": Unserved("the engines cache every prefix that they can", ("implicit",)),
    "prompt_cache_options.prewarm": Unserved("send the request with max_output_tokens: 1", (False,)),
    "prompt_cache_options.ttl": Unserved(_CACHE, ("30m",)),
    "reasoning.context": Unserved("models are not shown their earlier reasoning", ("auto",)),
    "reasoning.generate_summary": Unserved(_SUMMARY),
    "reasoning.mode": Unserved("there is one mode", ("standard",)),
    "stream_options.include_obfuscation": Unserved("events are not padded: their sizes show on the wire", (False,)),
    "suffix": Unserved("text is only added at the end", ("",)),
    "tools[].allowed_callers": Unserved("functions are called by the model alone", (["direct"],)),
    "tools[].async": Unserved("a call is answered in the next request", (False,)),
    "tools[].defer_loading": Unserved("there is no tool search here", (False,)),
    "tools[].output_schema": Unserved("describe the output in the description"),
    "web_search_options": Unserved("nothing is searched here: give a function for it"),
}
_OF_TOOLS = "tools[]."
_PARENTS = frozenset(name.partition(".")[0] for name in UNSERVED if "." in name)


def is_option_object(path: str) -> bool:
    """Its fields are parameters: each is looked at by itself."""
    return path in _PARENTS or path in OPTIONS


def routes_of(name: str) -> list[str]:
    """The routes that serve a parameter."""
    return [route for route, body in ROUTES.items() if name in body.__struct_fields__]


def is_one_of(value: Any, others: Iterable[Any]) -> bool:
    """As JSON sees it: 0 is not false, and 1 is not true."""
    return any(type(value) is type(other) and value == other for other in others)


def asks_for_nothing(name: str, value: Any) -> bool:
    """A parameter of another route has the value that it has there when it is not given."""
    return is_one_of(value, defaults_of(name))


def defaults_of(name: str) -> list[Any]:
    """What a parameter is on the routes that serve it when it is not given, where that can be written as JSON."""
    found = [_default(ROUTES[route], name) for route in routes_of(name)]
    return [value for value in found if isinstance(value, str | int | float | bool | list | dict)]


def neutral_values(kind: type[msgspec.Struct]) -> dict[str, list[Any]]:
    """The parameters that a body of this kind does not have, and the values that it takes of them; null always.

    Option objects are not among them.
    """
    served = {name for body in ROUTES.values() for name in body.__struct_fields__}
    named = {name: list(one.neutral) for name, one in UNSERVED.items() if "." not in name}
    found = {name: defaults_of(name) for name in sorted(served)} | named
    return {
        name: values
        for name, values in found.items()
        if name not in kind.__struct_encode_fields__ and not is_option_object(name)
    }


def option_objects() -> dict[str, dict[str, tuple[Any, ...]]]:
    """Every object of parameters, with the unserved ones in it and the values that ask for nothing."""
    found: dict[str, dict[str, tuple[Any, ...]]] = {name: {} for name in OPTIONS}
    for name, one in UNSERVED.items():
        parent, dot, field = name.partition(".")
        if dot and not parent.endswith("[]"):
            found.setdefault(parent, {})[field] = one.neutral
    return found


def unserved_of_tools() -> list[tuple[str, tuple[Any, ...]]]:
    """Fields of tools that are not served, and the values that ask for nothing."""
    return [(name.removeprefix(_OF_TOOLS), one.neutral) for name, one in UNSERVED.items() if name.startswith(_OF_TOOLS)]


def _default(body: type[msgspec.Struct], name: str) -> Any:
    field = next(field for field in msgspec.structs.fields(body) if field.name == name)
    if field.default is not msgspec.NODEFAULT:
        return field.default
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else msgspec.NODEFAULT
