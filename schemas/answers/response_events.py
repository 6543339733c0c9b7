"""What stands behind `data:` in the stream of a response. `sequence_number` is the place in the log, from 0."""

from __future__ import annotations

from typing import Literal

from schemas.answers.common import Answer, Count, Error
from schemas.answers.items import ItemName, OutputItem, OutputTextPart, ReasoningTextPart
from schemas.answers.logprobs import TokenObject
from schemas.answers.responses import ResponseObject


class StreamedEvent(Answer, frozen=True, kw_only=True):
    """What all have."""

    sequence_number: Count


class WholeEvent(StreamedEvent, frozen=True, kw_only=True):
    """The response as it stands at this event. A cancelled one ends with `response.incomplete`."""

    type: Literal[
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    response: ResponseObject


class ItemEvent(StreamedEvent, frozen=True, kw_only=True):
    """An output item opens or is done."""

    type: Literal["response.output_item.added", "response.output_item.done"]
    output_index: Count
    item: OutputItem


class PartEvent(StreamedEvent, frozen=True, kw_only=True):
    """A content part opens or is done."""

    type: Literal["response.content_part.added", "response.content_part.done"]
    item_id: ItemName
    output_index: Count
    content_index: Count
    part: OutputTextPart | ReasoningTextPart


class TextDeltaEvent(StreamedEvent, frozen=True, kw_only=True):
    """More text."""

    type: Literal["response.output_text.delta"]
    item_id: ItemName
    output_index: Count
    content_index: Count
    delta: str
    logprobs: list[TokenObject]


class TextDoneEvent(StreamedEvent, frozen=True, kw_only=True):
    """The whole text of a part."""

    type: Literal["response.output_text.done"]
    item_id: ItemName
    output_index: Count
    content_index: Count
    text: str
    logprobs: list[TokenObject]


class ReasoningDeltaEvent(StreamedEvent, frozen=True, kw_only=True):
    """More reasoning."""

    type: Literal["response.reasoning_text.delta"]
    item_id: ItemName
    output_index: Count
    content_index: Count
    delta: str


class ReasoningDoneEvent(StreamedEvent, frozen=True, kw_only=True):
    """The whole reasoning of a part."""

    type: Literal["response.reasoning_text.done"]
    item_id: ItemName
    output_index: Count
    content_index: Count
    text: str


class ArgumentsDeltaEvent(StreamedEvent, frozen=True, kw_only=True):
    """More of the arguments of a call."""

    type: Literal["response.function_call_arguments.delta"]
    item_id: ItemName
    output_index: Count
    delta: str


class ArgumentsDoneEvent(StreamedEvent, frozen=True, kw_only=True):
    """The whole arguments of a call."""

    type: Literal["response.function_call_arguments.done"]
    item_id: ItemName
    output_index: Count
    name: str
    arguments: str


class ErrorEvent(Answer, frozen=True, kw_only=True):
    """The stream can not go on; the last event of any format."""

    type: Literal["error"]
    code: str
    message: str
    param: str | None
    errorText: str
    """As the AI SDK calls the message."""
    error: Error


RESPONSE_EVENTS = (
    WholeEvent,
    ItemEvent,
    PartEvent,
    TextDeltaEvent,
    TextDoneEvent,
    ReasoningDeltaEvent,
    ReasoningDoneEvent,
    ArgumentsDeltaEvent,
    ArgumentsDoneEvent,
)
"""All but the error."""
