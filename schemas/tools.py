"""Functions that a model may call, and calls that it made."""

from __future__ import annotations

from typing import Any

import msgspec


class Tool(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A function as it is described to the model."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON schema of its arguments."""
    strict: bool | None = None


class ToolName(msgspec.Struct, frozen=True):
    """The choice of one function, which must be called."""

    name: str


class ToolCall(msgspec.Struct, frozen=True):
    """A call that the model made in an earlier turn; `arguments` is JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str
