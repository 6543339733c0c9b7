"""A chat completion as it is shown later; the client's own types say whether it is one."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionStoreMessage

from formats.stored_chat import store_messages, stored_chat_completion
from formats.transcript import transcript_of
from responses.stored import with_metadata
from schemas.events import Accepted, Completed, Entry, EntryId, InProgress, LogEvent, Queued, Text, Usage
from schemas.ids import ResponseId
from schemas.requests import GenerationRequest, ImageContent, Message, OutputFormat, TextContent
from schemas.tools import Tool, ToolCall, ToolName

ID = ResponseId("resp_" + "0" * 31 + "1")
SHOWN_ID = "chatcmpl-" + "0" * 31 + "1"


def log(**changes: Any) -> list[Entry]:
    request = GenerationRequest(model="m", messages=[Message("user", "hi")], **changes)
    events: list[LogEvent] = [
        Accepted(t=0, id=ID, tenant="t", format="chat", at_ms=5000, request=request, request_id="req_1"),
        Queued(t=0, lane="interactive"),
        InProgress(t=1, engine="e"),
        Text(t=2, delta="hello"),
        Completed(t=3, usage=Usage(input_tokens=1, output_tokens=1)),
    ]
    return [Entry(EntryId(0, number), event) for number, event in enumerate(events, start=1)]


def shown(**changes: Any) -> dict[str, Any]:
    found = stored_chat_completion(transcript_of(log(**changes)))
    ChatCompletion.model_validate(found, strict=True)
    return found


def test_it_shows_what_was_asked_and_null_for_what_was_not() -> None:
    plain = shown()
    assert (plain["id"], plain["choices"][0]["message"]["content"]) == (SHOWN_ID, "hello")
    assert (plain["metadata"], plain["request_id"], plain["service_tier"]) == ({}, "req_1", "default")
    unasked = ("input_user", "temperature", "top_p", "seed", "tools", "tool_choice", "response_format")
    assert [plain[name] for name in unasked] == [None] * len(unasked)
    full = shown(
        metadata={"a": "x"},
        user="u",
        temperature=0.5,
        top_p=0.9,
        presence_penalty=1.0,
        frequency_penalty=-1.0,
        seed=0,
        service_tier="flex",
        tools=[Tool(name="f", parameters={"type": "object"})],
        tool_choice=ToolName("f"),
        output_format=OutputFormat(schema={"type": "object"}, name="s", strict=True),
    )
    assert (full["metadata"], full["input_user"], full["seed"], full["service_tier"]) == ({"a": "x"}, "u", 0, "flex")
    assert full["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert full["tools"][0]["function"]["parameters"] == {"type": "object"}
    assert full["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert shown(output_format=OutputFormat())["response_format"] == {"type": "json_object"}
    assert shown(tools=[Tool(name="f")])["tool_choice"] == "auto"
    allowed = shown(tools=[Tool(name="f"), Tool(name="g")], allowed_tools=["g"], tool_choice="required")["tool_choice"]
    named = {"type": "function", "function": {"name": "g"}}
    assert allowed == {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}


@pytest.mark.parametrize(("metadata", "is_shown"), [(None, {"a": "x"}), ({}, {}), ({"b": "y"}, {"b": "y"})])
def test_metadata_that_was_changed_takes_the_place_of_the_logs(metadata: Any, is_shown: dict[str, str]) -> None:
    entries = log(metadata={"a": "x"})
    changed = with_metadata(entries, metadata)
    assert stored_chat_completion(transcript_of(changed))["metadata"] == is_shown
    assert changed[1:] == entries[1:]
    assert entries == log(metadata={"a": "x"})


def test_messages_are_those_of_the_client() -> None:
    image = ImageContent("data:image/png;base64,AAAA", "low")
    messages = store_messages(
        ID,
        [
            Message("system", "be brief"),
            Message("user", [TextContent("see "), image, TextContent("this")]),
            Message("user", [image]),
            Message("assistant", "", [ToolCall("c1", "f", "{}")]),
            Message("tool", "42", [], "c1"),
        ],
    )
    for message in messages:
        ChatCompletionStoreMessage.model_validate({**message, "role": "assistant"}, strict=True)
    assert [(m["id"], m["role"], m["content"]) for m in messages] == [
        (f"{SHOWN_ID}-0", "system", "be brief"),
        (f"{SHOWN_ID}-1", "user", "see this"),
        (f"{SHOWN_ID}-2", "user", None),
        (f"{SHOWN_ID}-3", "assistant", None),
        (f"{SHOWN_ID}-4", "tool", "42"),
    ]
    assert messages[0]["content_parts"] is None
    assert [part["type"] for part in messages[1]["content_parts"]] == ["text", "image_url", "text"]
    assert messages[2]["content_parts"] == [{"type": "image_url", "image_url": {"url": image.url, "detail": "low"}}]
    assert messages[3]["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert messages[4]["tool_call_id"] == "c1"
