"""Items of the Responses API: what a response was asked with, and what it put out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from formats.logprobs import logprob_objects
from formats.transcript import Item, Transcript
from schemas.ids import ResponseId, call_id, input_item_id, item_id
from schemas.requests import ImageContent, Message, TextContent

ItemObject = dict[str, Any]

OUTPUT_PREFIX = {"message": "msg", "reasoning": "rs", "function_call": "fc"}
_PREFIX = {**OUTPUT_PREFIX, "function_call_output": "fco"}


def turn_items(transcript: Transcript) -> list[ItemObject]:
    """Everything that a response adds to its conversation: its own input, then its output (the first choice)."""
    accepted = transcript.accepted
    assert accepted is not None
    return input_items(accepted.id, accepted.request.messages) + [
        output_item(accepted.id, item) for item in transcript.choices[0].items
    ]


def input_items(response_id: ResponseId, messages: Iterable[Message]) -> list[ItemObject]:
    """The input of a response."""
    return named_items(messages, lambda prefix, place: input_item_id(response_id, place, prefix))


def named_items(messages: Iterable[Message], name: Callable[[str, int], str]) -> list[ItemObject]:
    """`name` makes an id of a prefix and a place."""
    items = [item for message in messages for item in _items_of(message)]
    return [{"id": name(_PREFIX[item["type"]], place)} | item for place, item in enumerate(items)]


def _items_of(message: Message) -> list[ItemObject]:
    if message.role == "tool":
        output = {"type": "function_call_output", "call_id": message.tool_call_id, "output": message.text}
        return [output | {"status": "completed"}]
    calls: list[ItemObject] = [
        {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}
        | {"status": "completed"}
        for call in message.tool_calls
    ]
    if calls and not message.content:
        return calls
    content = [_input_part(part, message.role) for part in message.parts]
    return [{"type": "message", "role": message.role, "status": "completed", "content": content}, *calls]


def _input_part(part: TextContent | ImageContent, role: str) -> ItemObject:
    if isinstance(part, ImageContent):
        return {"type": "input_image", "image_url": part.url, "detail": part.detail, "file_id": None}
    if role == "assistant":
        return {"type": "output_text", "text": part.text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": part.text}


def output_items(transcript: Transcript) -> list[ItemObject]:
    """The output as far as it is there, of all choices in the order in which it was begun."""
    assert transcript.accepted is not None
    return [output_item(transcript.accepted.id, item) for item in transcript.items]


def output_item(response_id: ResponseId, item: Item) -> ItemObject:
    """One output item; without its content while that is still coming."""
    head = {"id": item_id(response_id, item.index, OUTPUT_PREFIX[item.kind]), "type": item.kind, "status": item.status}
    if item.kind == "function_call":
        return head | {"call_id": call_id(response_id, item.index), "name": item.name, "arguments": item.content}
    content = [] if item.status == "in_progress" else [output_part(item)]
    if item.kind == "reasoning":
        return head | {"summary": [], "content": content}
    return head | {"role": "assistant", "content": content}


def output_part(item: Item) -> ItemObject:
    """The one content part of a message or of reasoning."""
    if item.kind == "reasoning":
        return {"type": "reasoning_text", "text": item.content}
    logprobs = logprob_objects(item.logprobs)
    return {"type": "output_text", "text": item.content, "annotations": [], "logprobs": logprobs}
