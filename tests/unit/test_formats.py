"""A log with reasoning, text and calls, as each format shows it; and how deltas become such a log."""

from __future__ import annotations

import json
from typing import Any

import pytest

from consumers.pieces import piece_events
from engine.base import Delta, ToolPiece
from formats.chat import chat_completion, encode_chat
from formats.completions import completion, encode_completions
from formats.embeddings import embedding_list
from formats.responses import encode_responses, response_object
from formats.sse import Encode
from formats.structure import closing_events
from formats.transcript import Transcript, transcript_of
from schemas.errors import EngineError, WorkerLost
from schemas.events import (
    Accepted,
    Completed,
    Embedding,
    Entry,
    EntryId,
    InProgress,
    ItemAdded,
    LogEvent,
    Queued,
    Usage,
)
from schemas.ids import ResponseId
from schemas.logprobs import LikelyToken, TokenLogprob
from schemas.requests import EmbeddingInput, GenerationRequest, Message
from schemas.tools import Tool

ID = ResponseId("resp_" + "0" * 31 + "1")
REQUEST = GenerationRequest(
    model="m", messages=[Message("user", "hi")], tools=[Tool(name="f")], include_usage=True, logprobs=True
)
LIKELY = TokenLogprob("b", -0.5, top=(LikelyToken("c", -1.0),))
DELTAS = [
    Delta(reasoning="hm", tokens=(1,)),
    Delta(reasoning="!", tokens=(2,)),
    Delta(text="a", tokens=(3,)),
    Delta(text="b", tokens=(4,), logprobs=(LIKELY,)),
    Delta(tool=ToolPiece(0, "f"), tokens=(5,)),
    Delta(tool=ToolPiece(0, "", '{"x":'), tokens=(6,)),
    Delta(tool=ToolPiece(0, "", "1}"), tokens=(7,)),
    Delta(tool=ToolPiece(1, "g", "{}"), tokens=(8,)),
]


class Log:
    """What an attempt writes, without a broker."""

    def __init__(self, request: GenerationRequest = REQUEST) -> None:
        self.transcript = Transcript()
        self.entries: list[Entry] = []
        self.write(Accepted(t=0, id=ID, tenant="t", format="chat", at_ms=5000, request=request))
        self.write(Queued(t=0, lane="interactive"), InProgress(t=1))

    def write(self, *events: LogEvent) -> None:
        for event in events:
            self.entries.append(Entry(EntryId(1, len(self.entries) + 1), event))
            self.transcript.note(event)

    def take(self, *deltas: Delta, choice: int = 0) -> None:
        for delta in deltas:
            self.write(*piece_events(self.transcript, delta, 2, self.transcript.choice(choice)))

    def finish(self) -> None:
        usage = Usage(input_tokens=3, output_tokens=8, reasoning_tokens=2)
        self.write(*closing_events(self.transcript, 3, complete=True), Completed(t=3, usage=usage))

    def shown(self, encode: Encode) -> list[dict[str, Any]]:
        raw = b"".join(encode(self.entries, i) for i in range(len(self.entries)))
        lines = [line for line in raw.decode().split("\n") if line.startswith("data: ")]
        return [json.loads(line[6:]) for line in lines]


@pytest.fixture
def log() -> Log:
    log = Log()
    log.take(*DELTAS)
    log.finish()
    return log


def test_each_kind_of_piece_has_an_item_of_its_own_and_every_id_is_there(log: Log) -> None:
    items = log.transcript.items
    assert [(i.kind, i.content, i.name, i.status) for i in items] == [
        ("reasoning", "hm!", "", "completed"),
        ("message", "ab", "", "completed"),
        ("function_call", '{"x":1}', "f", "completed"),
        ("function_call", "{}", "g", "completed"),
    ]
    assert log.transcript.tokens == [1, 2, 3, 4, 5, 6, 7, 8]
    assert not log.transcript.untracked_text
    assert log.transcript.text == "ab"
    assert transcript_of(log.entries).tokens == log.transcript.tokens


@pytest.mark.parametrize("cut", range(len(DELTAS)))
def test_a_log_cut_anywhere_goes_on_to_the_same_items(cut: int) -> None:
    """As after a takeover: the engine goes on after the ids in the log."""
    whole, log = Log(), Log()
    whole.take(*DELTAS)
    log.take(*DELTAS[:cut])
    rest = [delta for delta in DELTAS if delta.tokens[0] not in log.transcript.tokens]
    log.take(*rest)
    assert log.entries == whole.entries


def test_a_cut_between_the_name_and_the_arguments_repeats_neither() -> None:
    log = Log()
    events = piece_events(log.transcript, Delta(tool=ToolPiece(0, "f", "{}"), tokens=(1,)), 2)
    log.write(*(event for event in events if isinstance(event, ItemAdded)))
    assert log.transcript.tokens == []
    log.take(Delta(tool=ToolPiece(0, "f", "{}"), tokens=(1,)))
    assert [(item.name, item.content) for item in log.transcript.items] == [("f", "{}")]
    with pytest.raises(WorkerLost):
        log.take(Delta(tool=ToolPiece(0, "other", "{}"), tokens=(1,)))


def test_pieces_of_calls_out_of_order_are_an_error_of_the_engine(log: Log) -> None:
    with pytest.raises(EngineError):
        piece_events(log.transcript, Delta(tool=ToolPiece(0, "", "late")), 9)


def test_chat_chunks_put_together_are_the_answer(log: Log) -> None:
    chunks = log.shown(encode_chat)
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "tool_calls": {}}
    for chunk in chunks:
        for choice in chunk["choices"]:
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            message["reasoning_content"] += delta.get("reasoning_content", "")
            for piece in delta.get("tool_calls", []):
                call = message["tool_calls"].setdefault(piece["index"], {"arguments": ""})
                call |= {k: v for k, v in piece.items() if k in ("id", "type")}
                call |= {"name": piece["function"]["name"]} if "name" in piece["function"] else {}
                call["arguments"] += piece["function"]["arguments"]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert chunks[-1]["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}
    answer = chat_completion(log.transcript)["choices"][0]
    assert answer["finish_reason"] == "tool_calls"
    assert answer["message"]["content"] == message["content"] == "ab"
    assert answer["message"]["reasoning_content"] == message["reasoning_content"] == "hm!"
    assert [c["function"] for c in answer["message"]["tool_calls"]] == [
        {"name": call["name"], "arguments": call["arguments"]} for call in message["tool_calls"].values()
    ]
    assert [c["id"] for c in answer["message"]["tool_calls"]] == [c["id"] for c in message["tool_calls"].values()]
    assert answer["logprobs"]["content"] == [
        {
            "token": "b",
            "logprob": -0.5,
            "bytes": [98],
            "top_logprobs": [{"token": "c", "logprob": -1.0, "bytes": [99]}],
        }
    ]


def test_the_responses_stream_has_one_event_for_each_entry_and_ends_with_the_answer(log: Log) -> None:
    events = log.shown(encode_responses)
    assert [event["sequence_number"] for event in events] == list(range(len(log.entries)))
    output = events[-1]["response"]["output"]
    assert output == response_object(log.transcript)["output"]
    assert [item["type"] for item in output] == ["reasoning", "message", "function_call", "function_call"]
    assert output[0]["content"] == [{"type": "reasoning_text", "text": "hm!"}]
    assert output[2]["arguments"] == '{"x":1}'
    added = {e["output_index"]: e["item"]["id"] for e in events if e["type"] == "response.output_item.added"}
    done = {e["output_index"]: e["item"]["id"] for e in events if e["type"] == "response.output_item.done"}
    inner = {(e["output_index"], e["item_id"]) for e in events if "item_id" in e}
    assert added == done == dict(inner)
    arguments = [e["arguments"] for e in events if e["type"] == "response.function_call_arguments.done"]
    assert arguments == ['{"x":1}', "{}"]


def test_a_completion_shows_the_text_with_offsets(log: Log) -> None:
    chunks = log.shown(encode_completions)
    assert "".join(choice["text"] for chunk in chunks for choice in chunk["choices"]) == "ab"
    answer = completion(log.transcript)["choices"][0]
    assert answer["text"] == "ab"
    assert answer["logprobs"] == {
        "tokens": ["b"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"c": -1.0}],
        "text_offset": [0],
    }
    streamed = next(c["choices"][0]["logprobs"] for c in chunks if c["choices"][0]["logprobs"])
    assert streamed["text_offset"] == [1]


@pytest.mark.parametrize(("encoding", "shown"), [("float", [1.0, -2.0]), ("base64", "AACAPwAAAMA=")])
def test_an_embedding_is_shown_as_it_was_asked_for(encoding: Any, shown: Any) -> None:
    log = Log(GenerationRequest(model="m", embed=EmbeddingInput(inputs=["a"], encoding=encoding)))
    log.write(Embedding(t=2, index=0, vector="AACAPwAAAMA=", input_tokens=4))
    log.write(Completed(t=3, usage=Usage(input_tokens=log.transcript.embedded_tokens)))
    answer = embedding_list(log.transcript)
    assert answer["data"] == [{"object": "embedding", "index": 0, "embedding": shown}]
    assert answer["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
