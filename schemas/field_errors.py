"""msgspec's messages about a field → errors that name its path and, where a type is not served, those that are."""

from __future__ import annotations

import re

from schemas.errors import InvalidRequest, UnsupportedParameter

_PATH = re.compile(r" - at (?:`\w+` in )?`\$\.?(.*)`$")
_MISSING = re.compile(r"missing required field `(.+?)`")
_WRONG_WORD = re.compile(r"Invalid (?:enum )?value ('.*')$", re.DOTALL)
_FUNCTIONS = "only functions are"
_SERVED: dict[re.Pattern[str], str] = {
    re.compile(pattern): words
    for pattern, words in {
        r"tools\[\d+\]\.type": _FUNCTIONS,
        r".*\.tools\[\d+\]\.type": _FUNCTIONS,
        r"tool_choice\.type": "function and allowed_tools are",
        r"messages\[\d+\]\.role": "system, developer, user, assistant and tool are",
        r"messages\[\d+\]\.tool_calls\[\d+\]\.type": _FUNCTIONS,
        r"input\[\d+\]\.type": "message, function_call, function_call_output, reasoning and item_reference are",
        r"items\[\d+\]\.type": "message, function_call, function_call_output and reasoning are",
        r".*\.(?:content|output)\[\d+\]\.type": "texts and images are",
    }.items()
}
"""Paths at which OpenAI knows more words than this server."""


def field_error(message: str) -> InvalidRequest:
    """From msgspec's message, which ends with the path of the field."""
    found = _PATH.search(message)
    path = found[1] if found else ""
    missing = _MISSING.search(message)
    if missing:
        path = f"{path}.{missing[1]}".lstrip(".")
    text = _PATH.sub("", message)
    word = _WRONG_WORD.fullmatch(text)
    served = next((words for pattern, words in _SERVED.items() if pattern.fullmatch(path)), None)
    if word and served:
        return UnsupportedParameter(f"{path}: {word[1][:100]} is not served: {served}.", param=path)
    return InvalidRequest(f"{path}: {text}." if path else f"{text}.", param=path or None)
