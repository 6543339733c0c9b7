"""POST /api/chat as the AI SDK's `DefaultChatTransport` sends it, and what may be added to it.

Types: `ui/ui-messages.ts` of the npm package `ai`. A message has parts of an open set of types (`tool-<name>`,
`data-<name>`, …), so a part is one shape with what any of them has. Fields that are not here are for its client alone.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from schemas.bodies import (
    _MAX_TOOLS,
    Body,
    Metadata,
    ResponsesTool,
    ResponsesToolChoice,
    _Seed,
    _Temperature,
    _Text,
    _Tokens,
    _ToolMode,
    _TopP,
)

MAX_CHAT_ID = 256
_Url = Annotated[str, Meta(max_length=30_000_000)]
_Name = Annotated[str, Meta(max_length=512)]
_ChatId = Annotated[str, Meta(min_length=1, max_length=MAX_CHAT_ID)]


class UiPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A part of a message; which fields it has depends on its type."""

    type: _Name
    text: _Text | None = None
    """Of `text` and `reasoning`."""
    url: _Url | None = None
    """Of `file` and `source-url`."""
    media_type: _Name | None = None
    tool_name: _Name | None = None
    """Of `dynamic-tool`; other calls have the name in their type."""
    tool_call_id: _Name | None = None
    state: _Name | None = None
    """Of a call: how far it is."""
    input: Any = msgspec.UNSET
    raw_input: Any = msgspec.UNSET
    """The arguments where they were no JSON."""
    output: Any = msgspec.UNSET
    error_text: _Text | None = None
    id: _Name | None = None
    """Of `data-…`, like the rest: shown again to who comes back, and not used."""
    data: Any = msgspec.UNSET
    source_id: _Name | None = None
    title: _Text | None = None
    filename: _Text | None = None

    @property
    def called_tool(self) -> str | None:
        """The name of the function, where this is a call."""
        if self.type == "dynamic-tool":
            return self.tool_name or ""
        return self.type.removeprefix("tool-") if self.type.startswith("tool-") else None


class UiMessage(msgspec.Struct, frozen=True):
    """A message as the client shows it."""

    role: Literal["system", "user", "assistant"]
    parts: Annotated[list[UiPart], Meta(max_length=10_000)]
    id: _Name = ""


class UiChatBody(Body, frozen=True, kw_only=True):
    """POST /api/chat: first what the SDK sends, then what its `body` or `prepareSendMessagesRequest` may add."""

    id: _ChatId
    """Of the chat; its client made it."""
    messages: Annotated[list[UiMessage], Meta(min_length=1, max_length=10_000)]
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    message_id: _Name = msgspec.field(default="", name="messageId")
    """The message that was sent again, is to be made again, or is to be added to."""
    model: _Name = ""
    """Empty: the only one that there is."""
    instructions: _Text | None = None
    temperature: _Temperature | None = None
    top_p: _TopP | None = None
    max_output_tokens: _Tokens | None = None
    seed: _Seed | None = None
    tools: Annotated[list[ResponsesTool], Meta(max_length=_MAX_TOOLS)] = msgspec.field(default_factory=list)
    tool_choice: _ToolMode | ResponsesToolChoice = "auto"
    metadata: Metadata = msgspec.field(default_factory=dict)

    @property
    def continued(self) -> UiMessage | None:
        """The assistant's message that the answer is added to: the SDK's rule, which its client follows too."""
        if self.trigger != "submit-message":
            return None
        named = [message for message in self.messages if message.id == self.message_id] if self.message_id else []
        message = named[0] if named else self.messages[-1]
        return message if message.role == "assistant" else None


class StopBody(msgspec.Struct, frozen=True):
    """POST /api/chat/{id}/stop; the SDK's example sends more, which is not used."""

    active_stream_id: _Name = msgspec.field(default="", name="activeStreamId")
    """Id of the message or response that is to be stopped, and no other; empty: whatever runs."""
