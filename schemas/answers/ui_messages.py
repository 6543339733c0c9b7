"""What stands behind `data:` in a UI message stream of the Vercel AI SDK, version 1, as far as it comes from here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from schemas.answers.common import Answer
from schemas.answers.responses import ResponseName


class StartChunk(Answer, frozen=True, kw_only=True):
    """A message begins, or goes on: `messageId` is the response's, or of the message that it is added to."""

    type: Literal["start"]
    messageId: str


class StepChunk(Answer, frozen=True, kw_only=True):
    type: Literal["start-step", "finish-step"]


class BoundChunk(Answer, frozen=True, kw_only=True):
    """A text, or reasoning, begins or ends."""

    type: Literal["text-start", "text-end", "reasoning-start", "reasoning-end"]
    id: str


class DeltaChunk(Answer, frozen=True, kw_only=True):
    """More of it."""

    type: Literal["text-delta", "reasoning-delta"]
    id: str
    delta: str


class ToolInputStartChunk(Answer, frozen=True, kw_only=True):
    """A call begins."""

    type: Literal["tool-input-start"]
    toolCallId: str
    toolName: str
    dynamic: Literal[True] | UnsetType = UNSET


class ToolInputDeltaChunk(Answer, frozen=True, kw_only=True):
    """More of its arguments."""

    type: Literal["tool-input-delta"]
    toolCallId: str
    inputTextDelta: str


class ToolInputChunk(Answer, frozen=True, kw_only=True):
    """The whole call: the client may run the tool."""

    type: Literal["tool-input-available"]
    toolCallId: str
    toolName: str
    input: Any


class ToolInputErrorChunk(Answer, frozen=True, kw_only=True):
    """The arguments are no JSON."""

    type: Literal["tool-input-error"]
    toolCallId: str
    toolName: str
    input: str
    errorText: str


class ToolOutputChunk(Answer, frozen=True, kw_only=True):
    """What an earlier call gave."""

    type: Literal["tool-output-available", "tool-output-error", "tool-output-denied"]
    toolCallId: str
    output: Any = UNSET
    errorText: str | UnsetType = UNSET


class EarlierChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the message that is added to, as the client has sent it."""

    type: Annotated[str, Meta(pattern=r"\A(file|source-url|source-document|data-)")]


class EndChunk(Answer, frozen=True, kw_only=True):
    type: Literal["finish"]
    finishReason: Literal["stop", "length", "content-filter", "tool-calls", "error"]


class AbortChunk(Answer, frozen=True, kw_only=True):
    """The response was cancelled."""

    type: Literal["abort"]
    reason: str


class UiErrorChunk(Answer, frozen=True, kw_only=True):
    """The response failed."""

    type: Literal["error"]
    errorText: str


UI_CHUNKS = (
    StartChunk,
    StepChunk,
    BoundChunk,
    DeltaChunk,
    ToolInputStartChunk,
    ToolInputDeltaChunk,
    ToolInputChunk,
    ToolInputErrorChunk,
    ToolOutputChunk,
    EarlierChunk,
    EndChunk,
    AbortChunk,
    UiErrorChunk,
)


class Stopped(Answer, frozen=True, kw_only=True):
    """Which response was ended."""

    stopped: ResponseName
