"""What a request needs and its model can not do, said so that the caller can help himself."""

from __future__ import annotations

from typing import Any

import msgspec

from responses.directory import Served
from schemas.errors import CapabilityMissing
from schemas.requests import Format, GenerationRequest

_WORDS = {
    "generates": "generate text",
    "completions": "complete a bare prompt",
    "tools": "call tools",
    "json_schema": "hold its output to JSON or to a JSON schema",
    "logprobs": "give log probabilities",
    "images": "read images",
    "embeddings": "make embeddings",
    "logit_bias": "take a bias on its tokens",
    "reasoning_effort": "be told how much to reason",
    "verbosity": "be told how much to say",
}
_PARAMS: dict[Format, dict[str, str]] = {
    "chat": {
        "tools": "tools",
        "json_schema": "response_format",
        "logprobs": "logprobs",
        "images": "messages",
        "logit_bias": "logit_bias",
        "reasoning_effort": "reasoning_effort",
        "verbosity": "verbosity",
    },
    "responses": {
        "tools": "tools",
        "json_schema": "text.format",
        "logprobs": "top_logprobs",
        "images": "input",
        "reasoning_effort": "reasoning.effort",
        "verbosity": "text.verbosity",
    },
    "completions": {
        "completions": "model",
        "json_schema": "response_format",
        "logprobs": "logprobs",
        "logit_bias": "logit_bias",
    },
    "embeddings": {},
    "ui": {"tools": "tools", "images": "messages"},
}
"""The field that asks for it; where none does, the model is the wrong one."""


_WISHES: dict[str, Any] = {"logit_bias": {}, "reasoning_effort": None, "verbosity": None}
"""What a request can be served without, if less well, and the value that does not ask for it."""


def without_wishes(served: Served, request: GenerationRequest, format: Format) -> tuple[GenerationRequest, list[str]]:
    """The request without the wishes that its model can not fulfil, and their parameters.

    Where no worker has been seen nothing is left out: the worker that comes refuses what it can not do.
    """
    missing = served.capabilities.all_missing_for(request) if served.capabilities else []
    wishes = [name for name in missing if name in _WISHES]
    left = msgspec.structs.replace(request, **{name: _WISHES[name] for name in wishes})
    return left, [_PARAMS.get(format, {}).get(name, name) for name in wishes]


def check_capabilities(served: Served, request: GenerationRequest, format: Format) -> None:
    """Before anything is queued. Raises CapabilityMissing; passes where no worker has been seen: it will check."""
    missing = served.capabilities.missing_for(request) if served.capabilities is not None else None
    if missing is not None:
        raise capability_missing(missing, model=served.name, engine=served.engine, format=format)


def check_sees_images(served: Served, format: Format) -> None:
    """Before any is fetched. Raises CapabilityMissing; passes where no worker has been seen."""
    if served.capabilities is not None and not served.capabilities.images:
        raise capability_missing("images", model=served.name, engine=served.engine, format=format)


def capability_missing(missing: str, *, model: str, engine: str, format: Format) -> CapabilityMissing:
    """The error that names model, engine and the capability: a field name of Capabilities."""
    param = _PARAMS.get(format, {}).get(missing, "model")
    remedy = (
        "choose another model"
        if param in ("model", "messages", "input")
        else f"leave {param} out, or choose another model"
    )
    return CapabilityMissing(
        f"The model {model!r} (engine {engine}) can not {_WORDS.get(missing, missing)} (capability {missing!r}): "
        f"{remedy}; GET /v1/models shows what each can do.",
        param=param,
    )
