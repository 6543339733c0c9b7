"""Items of the Responses API: what a response was asked with, and what it put out."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from schemas.answers.common import Answer, IdPage, Nothing
from schemas.answers.logprobs import TokenObject

ImageDetail = Literal["auto", "low", "high"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]
ItemName = Annotated[str, Meta(pattern=r"\A(msg|rs|fc|fco)_[0-9a-f]{32}(_(in)?[0-9]+)?\Z")]
"""Id of an item."""


class OutputTextPart(Answer, frozen=True, kw_only=True, tag_field="type", tag="output_text"):
    text: str
    annotations: Nothing
    logprobs: list[TokenObject]


class ReasoningTextPart(Answer, frozen=True, kw_only=True, tag_field="type", tag="reasoning_text"):
    text: str


class InputTextPart(Answer, frozen=True, kw_only=True, tag_field="type", tag="input_text"):
    text: str


class InputImagePart(Answer, frozen=True, kw_only=True, tag_field="type", tag="input_image"):
    image_url: str
    detail: ImageDetail
    file_id: None


class OutputMessage(Answer, frozen=True, kw_only=True, tag_field="type", tag="message"):
    """A message of the model."""

    id: ItemName
    status: ItemStatus
    role: Literal["assistant"]
    content: list[OutputTextPart]


class OutputReasoning(Answer, frozen=True, kw_only=True, tag_field="type", tag="reasoning"):
    """What the model thought before its answer."""

    id: ItemName
    status: ItemStatus
    summary: Nothing
    content: list[ReasoningTextPart]
    encrypted_content: UnsetType | None = UNSET
    """Of items that an earlier version has stored."""


class CallObject(Answer, frozen=True, kw_only=True, tag_field="type", tag="function_call"):
    """The call of a function."""

    id: ItemName
    status: ItemStatus
    call_id: str
    name: str
    arguments: str
    """JSON text as the model wrote it."""


OutputItem = OutputMessage | OutputReasoning | CallObject


class MessageObject(Answer, frozen=True, kw_only=True, tag_field="type", tag="message"):
    """A message of anybody."""

    id: ItemName
    status: ItemStatus
    role: Literal["system", "developer", "user", "assistant"]
    content: list[InputTextPart | InputImagePart | OutputTextPart]


class CallOutputObject(Answer, frozen=True, kw_only=True, tag_field="type", tag="function_call_output"):
    """What the call of a function gave."""

    id: ItemName
    status: ItemStatus
    call_id: str
    output: str


StoredItemObject = MessageObject | OutputReasoning | CallObject | CallOutputObject
"""An item of a conversation, or of the input of a response."""


class ItemPage(IdPage[StoredItemObject], frozen=True, kw_only=True):
    """A part of a list of items."""
