"""The AI SDK's messages, both ways: a log as its chunks, and its messages as those of a request."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from engine.base import Delta, ToolPiece
from formats.plain_text import encode_plain_text, place_of
from formats.structure import closing_events
from formats.ui_messages import encode_ui_messages, encode_whole_ui_messages, message_id
from ingress.framing import sse_last_words
from ingress.gateway import Gateway
from ingress.tails import Tail
from ingress.ui_chat import only_model
from responses.directory import Served
from responses.ui_messages import messages_of_ui, resolve_ui_chat
from schemas.api import parse_body
from schemas.capabilities import Capabilities
from schemas.errors import InvalidCursor, InvalidRequest, StreamDiverged
from schemas.events import Cancelled, Completed, Entry, EntryId, ErrorDetail, Failed, Incomplete, Terminal, Usage
from schemas.requests import ContinuedMessage, GenerationRequest, ImageContent, Message
from schemas.tools import ToolCall
from schemas.ui_messages import UiChatBody, UiMessage
from tests.unit.test_formats import DELTAS, ID, Log

HEX = ID[5:]
CALL = f"call_{HEX}_2"
Chunk = dict[str, Any]


class Client:
    """Builds a message as `processUIMessageStream` of the SDK does, and fails where that fails."""

    def __init__(self, chunks: list[Chunk]) -> None:
        self.id = ""
        self.parts: list[Chunk] = []
        self.open: dict[str, Chunk] = {}
        self.run: list[Any] = []
        """Inputs of the calls that it would make."""
        self.finish_reason = ""
        for chunk in chunks:
            self.take(chunk)

    def take(self, chunk: Chunk) -> None:
        kind, _, verb = chunk["type"].rpartition("-")
        match kind, verb:
            case "", "start":
                self.id = chunk["messageId"]
            case "", "finish":
                self.finish_reason = chunk["finishReason"]
            case "start", "step":
                self.parts.append({"type": "step-start"})
            case "finish", "step":
                assert not self.open, "text is closed in its step"
            case (("text" | "reasoning"), "start"):
                self.open[chunk["id"]] = {"type": kind, "text": ""}
                self.parts.append(self.open[chunk["id"]])
            case (("text" | "reasoning"), "delta"):
                self.open[chunk["id"]]["text"] += chunk["delta"]
            case (("text" | "reasoning"), "end"):
                del self.open[chunk["id"]]
            case "tool-input", "start":
                part = {"type": f"tool-{chunk['toolName']}", "toolCallId": chunk["toolCallId"]}
                self.parts.append(part | {"state": "input-streaming", "raw": ""})
            case "tool-input", "delta":
                self.call(chunk)["raw"] += chunk["inputTextDelta"]
            case "tool-input", "available":
                self.call(chunk).update(state="input-available", input=chunk["input"])
                self.run.append(chunk["input"])
            case ("tool-input", "error") | ("tool-output", "error"):
                self.call(chunk).update(state="output-error", errorText=chunk["errorText"])
            case "tool-output", "available":
                part = self.call(chunk)
                part.update(state="output-available", input=json.loads(part["raw"]), output=chunk["output"])
            case "tool-output", "denied":
                self.call(chunk).update(state="output-denied")
            case _:
                assert chunk["type"] in ("error", "abort", "source-url", "data-weather"), chunk

    def call(self, chunk: Chunk) -> Chunk:
        return next(part for part in self.parts if part.get("toolCallId") == chunk["toolCallId"])


def finished(deltas: list[Delta], terminal: Terminal, request: GenerationRequest | None = None) -> Log:
    log = Log(request) if request is not None else Log()
    log.take(*deltas)
    log.write(*closing_events(log.transcript, 3, complete=isinstance(terminal, Completed)), terminal)
    return log


COMPLETED = Completed(t=3, usage=Usage())
INCOMPLETE = Incomplete(t=3, usage=Usage())
FAILED = Failed(t=3, error=ErrorDetail("engine_error", "It broke."))
CANCELLED = Cancelled(t=3)


def test_every_kind_of_piece_is_shown() -> None:
    log = finished(DELTAS, COMPLETED)
    reasoning, text = f"rs_{HEX}_0", f"msg_{HEX}_1"
    second = f"call_{HEX}_3"
    assert log.shown(encode_ui_messages) == [
        {"type": "start", "messageId": ID},
        {"type": "start-step"},
        {"type": "reasoning-start", "id": reasoning},
        {"type": "reasoning-delta", "id": reasoning, "delta": "hm"},
        {"type": "reasoning-delta", "id": reasoning, "delta": "!"},
        {"type": "reasoning-end", "id": reasoning},
        {"type": "text-start", "id": text},
        {"type": "text-delta", "id": text, "delta": "a"},
        {"type": "text-delta", "id": text, "delta": "b"},
        {"type": "text-end", "id": text},
        {"type": "tool-input-start", "toolCallId": CALL, "toolName": "f"},
        {"type": "tool-input-delta", "toolCallId": CALL, "inputTextDelta": '{"x":'},
        {"type": "tool-input-delta", "toolCallId": CALL, "inputTextDelta": "1}"},
        {"type": "tool-input-available", "toolCallId": CALL, "toolName": "f", "input": {"x": 1}},
        {"type": "tool-input-start", "toolCallId": second, "toolName": "g"},
        {"type": "tool-input-delta", "toolCallId": second, "inputTextDelta": "{}"},
        {"type": "tool-input-available", "toolCallId": second, "toolName": "g", "input": {}},
        {"type": "finish-step"},
        {"type": "finish", "finishReason": "tool-calls"},
    ]


@pytest.mark.parametrize("terminal", [COMPLETED, INCOMPLETE, FAILED, CANCELLED])
@pytest.mark.parametrize("count", range(len(DELTAS) + 1))
def test_a_log_that_ends_anywhere_is_a_stream_that_clients_take(count: int, terminal: Terminal) -> None:
    log = finished(DELTAS[:count], terminal)
    chunks = log.shown(encode_ui_messages)
    client = Client(chunks)
    assert not client.open
    texts = "".join(part["text"] for part in client.parts if part["type"] == "text")
    assert texts == log.transcript.text
    last = {Completed: "finish", Incomplete: "finish", Failed: "finish", Cancelled: "abort"}[type(terminal)]
    assert [chunk["type"] for chunk in chunks].index(last) == len(chunks) - 1


@pytest.mark.parametrize(
    ("terminal", "reason"),
    [
        (COMPLETED, "stop"),
        (INCOMPLETE, "length"),
        (Incomplete(t=3, usage=Usage(), reason="content_filter"), "content-filter"),
        (FAILED, "error"),
    ],
)
def test_the_reason_is_in_the_words_of_the_sdk(terminal: Terminal, reason: str) -> None:
    assert Client(finished(DELTAS[2:4], terminal).shown(encode_ui_messages)).finish_reason == reason


def test_a_failure_says_why_and_one_without_a_worker_opens_no_step() -> None:
    log = Log()
    log.entries = [*log.entries[:2], Entry(EntryId(1, 3), FAILED)]
    assert log.shown(encode_ui_messages) == [
        {"type": "start", "messageId": ID},
        {"type": "error", "errorText": "It broke."},
        {"type": "finish", "finishReason": "error"},
    ]


def test_a_call_that_was_cut_off_is_never_one_that_a_client_would_make() -> None:
    for count, terminal in [(6, INCOMPLETE), (5, FAILED), (6, CANCELLED)]:
        client = Client(finished(DELTAS[:count], terminal).shown(encode_ui_messages))
        assert client.run == []
        assert client.parts[-1]["state"] == "input-streaming"


@pytest.mark.parametrize("arguments", ["", " "])
def test_a_call_without_arguments_has_none(arguments: str) -> None:
    deltas = [Delta(tool=ToolPiece(0, "f", arguments), tokens=(1,))]
    assert Client(finished(deltas, COMPLETED).shown(encode_ui_messages)).run == [{}]


@pytest.mark.parametrize("arguments", ['{"x":', "[" * 100_000, '"\\ud800"'])
def test_arguments_that_are_no_json_are_an_error_of_the_call_alone(arguments: str) -> None:
    deltas = [Delta(tool=ToolPiece(0, "f", arguments), tokens=(1,)), Delta(tool=ToolPiece(1, "g", "{}"), tokens=(2,))]
    client = Client(finished(deltas, COMPLETED).shown(encode_ui_messages))
    assert [part.get("state") for part in client.parts] == [None, "output-error", "input-available"]
    assert client.run == [{}]


def test_the_id_of_an_entry_stands_on_its_last_chunk_and_every_chunk_is_whole_on_one_line() -> None:
    log = finished(DELTAS, FAILED)
    for index, entry in enumerate(log.entries):
        raw = encode_ui_messages(log.entries, index).decode()
        events = raw.split("\n\n")[:-1]
        assert raw.count("id: ") - raw.count('"id: ') == bool(events)
        assert not events or events[-1].endswith(f"\nid: {entry.id}")
        assert all(event.split("\n")[0].startswith("data: {") for event in events)


EARLIER = [
    {"type": "step-start"},
    {"type": "reasoning", "text": "hm", "state": "done"},
    {"type": "text", "text": "Let me see.", "state": "done"},
    {
        "type": "tool-f",
        "toolCallId": "call_1",
        "state": "output-available",
        "input": {"x": 1},
        "output": {"y": [2]},
    },
    {"type": "tool-g", "toolCallId": "call_2", "state": "output-error", "input": {}, "errorText": "no"},
    {"type": "source-url", "sourceId": "s", "url": "https://example.com", "title": "t"},
    {"type": "data-weather", "id": "w", "data": {"degrees": 3}},
    {"type": "custom", "kind": "a.b"},
]
ANSWERED = {"id": "m1", "role": "assistant", "parts": EARLIER}
ASKED = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "hi"}]}


def resolved(*messages: Any, **more: Any) -> GenerationRequest:
    raw = json.dumps({"id": "c", "messages": messages, "trigger": "submit-message", **more}).encode()
    body = parse_body(raw, UiChatBody, unsupported="reject").body
    return resolve_ui_chat(body, model="m", default_max=0, deadline_at_ms=0)


def test_who_comes_back_is_given_the_whole_message_that_the_answer_is_added_to() -> None:
    request = resolved(ASKED, ANSWERED)
    log = finished(DELTAS[2:4], COMPLETED, request)
    sent, whole = Client(log.shown(encode_ui_messages)), Client(log.shown(encode_whole_ui_messages))
    assert sent.id == whole.id == "m1"
    assert [part["type"] for part in sent.parts] == ["step-start", "text"], "this client has the rest"
    types = ["step-start", "reasoning", "text", "tool-f", "tool-g", "step-start", "text"]
    assert [part["type"] for part in whole.parts] == types
    call = whole.parts[3]
    assert (call["state"], call["input"], call["output"]) == ("output-available", {"x": 1}, {"y": [2]})
    assert whole.parts[4]["state"] == "output-error"
    assert whole.run == [], "no tool runs again"
    shown = log.shown(encode_whole_ui_messages)
    for part in EARLIER[5:7]:
        assert part in shown, "what the client's own server had put in"


def test_an_answer_to_the_user_is_a_message_of_its_own() -> None:
    for request in (
        resolved(ASKED),
        resolved(ASKED, ANSWERED, ASKED),
        resolved(ASKED, ANSWERED, trigger="regenerate-message"),
        resolved(ASKED, ANSWERED, messageId="u1"),
    ):
        assert request.continued is None
        log = finished(DELTAS, COMPLETED, request)
        assert log.shown(encode_whole_ui_messages) == log.shown(encode_ui_messages)
        assert log.shown(encode_ui_messages)[0]["messageId"] == ID
    named = resolved(ASKED, ANSWERED, ASKED, messageId="m1")
    assert named.continued is not None
    assert message_id(finished([], COMPLETED, named).entries[0].event) == "m1"  # type: ignore[arg-type]
    nameless = GenerationRequest(model="m", continued=ContinuedMessage(""))
    assert message_id(finished([], COMPLETED, nameless).entries[0].event) == ID  # type: ignore[arg-type]


def test_messages_become_those_of_a_request() -> None:
    picture = "data:image/png;base64,iVBORw0KGgo="
    messages = [
        {"id": "s", "role": "system", "parts": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}]},
        {
            "id": "u",
            "role": "user",
            "metadata": {"a": 1},
            "parts": [
                {"type": "file", "mediaType": "image/png", "filename": "a.png", "url": picture},
                {"type": "text", "text": "What is it?"},
                {"type": "data-mood", "data": 1},
            ],
        },
        ANSWERED,
        {
            "id": "a2",
            "role": "assistant",
            "parts": [
                {"type": "step-start"},
                {
                    "type": "dynamic-tool",
                    "toolName": "h",
                    "toolCallId": "call_3",
                    "state": "output-denied",
                    "input": {"z": None},
                    "approval": {"id": "x", "approved": False},
                },
                {"type": "tool-f", "toolCallId": "call_4", "state": "input-available", "input": {}},
                {"type": "step-start"},
                {"type": "text", "text": "Never mind."},
                {"type": "step-start"},
                {"type": "tool-f", "toolCallId": "call_5", "state": "input-streaming"},
            ],
        },
        ASKED,
    ]
    assert resolved(*messages).messages == [
        Message("system", "Be kind."),
        Message("user", [ImageContent(picture), *Message("user", "What is it?").parts]),
        Message("assistant", "Let me see.", [ToolCall("call_1", "f", '{"x":1}'), ToolCall("call_2", "g", "{}")]),
        Message("tool", '{"y":[2]}', [], "call_1"),
        Message("tool", "no", [], "call_2"),
        Message("assistant", "", [ToolCall("call_3", "h", '{"z":null}')]),
        Message("tool", "The user did not allow this call.", [], "call_3"),
        Message("assistant", "Never mind."),
        Message("user", "hi"),
    ]


@pytest.mark.parametrize(
    ("part", "arguments", "result"),
    [
        ({"state": "output-available", "input": {}, "output": "as it is"}, "{}", "as it is"),
        ({"state": "output-available", "input": {}, "output": None}, "{}", "null"),
        ({"state": "output-available", "output": 5}, "{}", "5"),
        ({"state": "output-error", "rawInput": '{"x":', "errorText": "bad"}, '{"x":', "bad"),
        ({"state": "output-error", "input": '{"x":', "errorText": "bad"}, '{"x":', "bad"),
    ],
)
def test_calls_and_their_results_are_text_for_the_model(part: Chunk, arguments: str, result: str) -> None:
    call = {"type": "tool-f", "toolCallId": "c"} | part
    said, told = messages_of_ui(msgspec.convert([{"role": "assistant", "parts": [call]}], list[UiMessage]))
    assert said.tool_calls == [ToolCall("c", "f", arguments)]
    assert told == Message("tool", result, [], "c")


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "parts": []}, "messages[0].parts"),
        ({"role": "user", "parts": [{"type": "data-x", "data": 1}]}, "messages[0].parts"),
        (
            {"role": "user", "parts": [{"type": "file", "mediaType": "application/pdf", "url": "data:,"}]},
            "messages[0].parts[0].mediaType",
        ),
        (
            {"role": "assistant", "parts": [{"type": "file", "mediaType": "image/png", "url": "data:,"}]},
            "messages[0].parts[0]",
        ),
        ({"role": "assistant", "parts": [{"type": "tool-f", "state": "output-available"}]}, "messages[0].parts[0]"),
        ({"role": "assistant", "parts": [{"type": "text", "text": ""}]}, "messages"),
        ({"role": "robot", "parts": []}, "messages[0].role"),
        ({"role": "user", "parts": [{"text": "x"}]}, "messages[0].parts[0].type"),
    ],
)
def test_what_no_model_can_be_given_is_refused_by_name(message: Chunk, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        resolved(message)
    assert caught.value.param == param


def test_plain_text_is_what_the_model_says_and_a_place_in_it_is_a_number_of_bytes() -> None:
    log = Log()
    log.take(Delta(reasoning="hm", tokens=(1,)), Delta(text="é", tokens=(2,)), Delta(text="", tokens=(3,)))
    log.take(Delta(tool=ToolPiece(0, "f", "{}"), tokens=(4,)), Delta(text="→ 𝄞", tokens=(5,)))
    log.finish()
    entries = log.entries
    whole = "é→ 𝄞".encode()
    assert b"".join(encode_plain_text(entries, i) for i in range(len(entries))) == whole
    for offset in range(len(whole) + 1):
        start, skipped = place_of(entries, offset)
        assert b"".join(encode_plain_text(entries, i) for i in range(start, len(entries)))[skipped:] == whole[offset:]
    with pytest.raises(InvalidCursor, match="beyond the end of the text, 10"):
        place_of(entries, len(whole) + 1)


def test_a_stream_that_can_not_go_on_ends_with_an_error_in_the_words_of_every_format() -> None:
    tail = Tail(ID, finished([], COMPLETED).entries)
    assert sse_last_words(tail) == b"data: [DONE]\n\n"
    tail.error = StreamDiverged()
    event, done = sse_last_words(tail).decode().split("\n\n")[:2]
    body = json.loads(event.split("data: ")[1])
    assert body["type"] == "error"
    assert body["errorText"] == body["message"] == body["error"]["message"] == StreamDiverged.__doc__
    assert done == "data: [DONE]"


def gateway_with(*models: Served) -> Gateway:
    async def listed() -> list[Served]:
        return list(models)

    return cast(Gateway, SimpleNamespace(directory=SimpleNamespace(listed=listed)))


async def test_the_model_may_be_left_out_where_there_is_only_one() -> None:
    embeds = Served(name="e", model="e", engine="x", capabilities=Capabilities(generates=False, embeddings=True))
    one = Served(name="a", model="a", engine="x")
    adapted = Served(name="a-blue", model="a", adapter="a-blue", engine="x")
    assert await only_model(gateway_with(embeds, one, adapted)) == one
    for models, there in (((), "none"), ((one, Served(name="b", model="b", engine="x")), "a, b")):
        with pytest.raises(InvalidRequest, match=f"this server has: {there}") as caught:
            await only_model(gateway_with(embeds, *models))
        assert caught.value.param == "model"
