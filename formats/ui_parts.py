"""A message of the AI SDK that is there already, as the chunks that build it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from schemas.ui_messages import UiPart

Chunk = dict[str, Any]

_SHOWN = ("file", "source-url", "source-document")
"""Parts that are one chunk with the same fields; so are `data-…`."""
_STATES = ("output-available", "output-error", "output-denied")


def chunks_of(parts: Sequence[UiPart]) -> list[Chunk]:
    """All parts in their order, in their steps. Parts of a type that is not known are left out."""
    chunks: list[Chunk] = []
    for index, part in enumerate(parts):
        if part.type == "step-start":
            chunks += [*_step_end(chunks), {"type": "start-step"}]
        elif part.type in ("text", "reasoning"):
            chunks += _text(part, f"earlier-{index}")
        elif part.called_tool is not None:
            chunks += _call(part)
        elif part.type in _SHOWN or part.type.startswith("data-"):
            chunks.append(msgspec.to_builtins(part))
    return [*chunks, *_step_end(chunks)]


def _step_end(chunks: list[Chunk]) -> list[Chunk]:
    """Of the step that is open."""
    return [{"type": "finish-step"}] if any(chunk["type"] == "start-step" for chunk in chunks) else []


def _text(part: UiPart, name: str) -> list[Chunk]:
    head = {"id": name}
    return [
        {"type": f"{part.type}-start", **head},
        {"type": f"{part.type}-delta", **head, "delta": part.text or ""},
        {"type": f"{part.type}-end", **head},
    ]


def _call(part: UiPart) -> list[Chunk]:
    """Without `tool-input-available`, at which clients would run the tool again: its input comes as a delta."""
    head = {"toolCallId": part.tool_call_id or ""}
    start = {"type": "tool-input-start", **head, "toolName": part.called_tool}
    chunks = [start | ({"dynamic": True} if part.type == "dynamic-tool" else {})]
    if part.input is not msgspec.UNSET:
        text = msgspec.json.encode(part.input).decode()
        chunks.append({"type": "tool-input-delta", **head, "inputTextDelta": text})
    if part.state in _STATES:
        chunks.append({"type": f"tool-{part.state}", **head, **_result(part)})
    return chunks


def _result(part: UiPart) -> Chunk:
    if part.state == "output-available":
        return {"output": None if part.output is msgspec.UNSET else part.output}
    return {"errorText": part.error_text or ""} if part.state == "output-error" else {}
