"""Messages as items and back: what the model is told does not depend on where its history was read."""

from __future__ import annotations

import msgspec
import pytest

from formats.items import input_items, turn_items
from formats.transcript import transcript_of
from responses.resolve import messages_of
from responses.turns import turn_of
from schemas.bodies import InputItem
from schemas.events import Accepted, Entry, EntryId, LogEvent, Queued, decode_event
from schemas.ids import new_conversation_id, new_response_id
from schemas.requests import GenerationRequest, ImageContent, Message, TextContent
from schemas.tools import ToolCall

IMAGE = ImageContent("data:image/png;base64,aaaa", "high")
CALLS = [ToolCall("call_1", "f", "{}"), ToolCall("call_2", "g", '{"a":1}')]
MESSAGES = [
    Message("system", "be brief"),
    Message("developer", "really"),
    Message("user", "模型 🙂"),
    Message("user", [TextContent("see"), IMAGE, TextContent("?")]),
    Message("assistant", "I look", CALLS),
    Message("tool", "1", [], "call_1"),
    Message("tool", "2", [], "call_2"),
    Message("assistant", "", [CALLS[0]]),
    Message("tool", "3", [], "call_1"),
    Message("assistant", "done"),
    Message("user", ""),
]
OUTPUT = [
    '{"type":"in_progress","t":1}',
    '{"type":"item_added","t":1,"item":"reasoning"}',
    '{"type":"part_added","t":1}',
    '{"type":"reasoning","t":1,"delta":"hm"}',
    '{"type":"reasoning_done","t":1}',
    '{"type":"part_done","t":1}',
    '{"type":"item_done","t":1}',
    '{"type":"item_added","t":2,"output_index":1}',
    '{"type":"part_added","t":2,"output_index":1}',
    '{"type":"text","t":2,"delta":"I call","output_index":1}',
    '{"type":"text_done","t":2,"output_index":1}',
    '{"type":"part_done","t":2,"output_index":1}',
    '{"type":"item_done","t":2,"output_index":1}',
    '{"type":"item_added","t":3,"output_index":2,"item":"function_call","name":"f"}',
    '{"type":"arguments","t":3,"delta":"{}","output_index":2}',
    '{"type":"arguments_done","t":3,"output_index":2}',
    '{"type":"item_done","t":3,"output_index":2}',
]


def back(items: object) -> list[Message]:
    return messages_of(msgspec.convert(msgspec.json.decode(msgspec.json.encode(items)), list[InputItem]))


def log(end: str, **changes: object) -> list[Entry]:
    request = GenerationRequest(model="m", messages=[Message("user", "x")], **changes)  # type: ignore[arg-type]
    accepted = Accepted(t=0, id=new_response_id(), tenant="a", format="responses", at_ms=0, request=request)
    events: list[LogEvent] = [accepted, Queued(t=0, lane="interactive")]
    events += [decode_event(event.encode()) for event in (*OUTPUT, end)]
    return [Entry(EntryId(0 if i < 2 else 1, i + 1), event) for i, event in enumerate(events)]


def test_messages_are_the_same_after_a_way_through_items() -> None:
    assert back(input_items(new_response_id(), MESSAGES)) == MESSAGES


def test_every_input_item_has_an_id_of_its_own_and_the_same_each_time() -> None:
    response_id = new_response_id()
    items = input_items(response_id, MESSAGES)
    assert len({item["id"] for item in items}) == len(items) == 13
    assert items == input_items(response_id, MESSAGES)
    assert {item["id"].partition("_")[0] for item in items} == {"msg", "fc", "fco"}


def test_a_turn_is_told_as_one_message_of_the_assistant_without_its_reasoning() -> None:
    transcript = transcript_of(log('{"type":"completed","t":4,"usage":{}}'))
    assert transcript.accepted is not None
    items = turn_items(transcript)
    assert [item["type"] for item in items] == ["message", "reasoning", "message", "function_call"]
    call = ToolCall(items[3]["call_id"], "f", "{}")
    assert back(items) == [Message("user", "x"), Message("assistant", "I call", [call])]


@pytest.mark.parametrize(
    ("end", "adds"),
    [
        ('{"type":"completed","t":4,"usage":{}}', True),
        ('{"type":"incomplete","t":4,"usage":{}}', True),
        ('{"type":"cancelled","t":4}', False),
        ('{"type":"failed","t":4,"error":{"code":"x","message":"y"}}', False),
    ],
)
def test_only_what_ended_by_itself_and_is_stored_is_a_turn_of_its_conversation(end: str, adds: bool) -> None:
    conversation = new_conversation_id()
    turn = turn_of(transcript_of(log(end, conversation=conversation)))
    assert (turn is not None) == adds
    if turn is not None:
        assert turn.conversation == conversation
        assert [item.kind for item in turn.items] == ["message", "reasoning", "message", "function_call"]
    assert turn_of(transcript_of(log(end, conversation=conversation, store=False))) is None
    assert turn_of(transcript_of(log(end))) is None
