"""The engine `openai`: tools as they go out, and calls as all kinds of servers send them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine.base import Delta, ToolPiece
from engine.remote.engine import RemoteEngine
from schemas.errors import EngineError
from schemas.requests import Message
from schemas.tools import Tool, ToolCall, ToolName
from tests.remotes import collect, making, pieces, sent
from tests.upstream import Upstream, streams, upstream

WEATHER = Tool(name="get_weather", description="In a city.", parameters={"type": "object"}, strict=True)
TIME = Tool(name="get_time")


@pytest.fixture
async def remote() -> AsyncIterator[Upstream]:
    async with upstream() as server:
        yield server


@pytest.fixture
async def engine(remote: Upstream) -> AsyncIterator[RemoteEngine]:
    async with making(remote.url) as make:
        yield make()


def calls(*parts: dict[str, Any]) -> dict[str, Any]:
    """A choice with these parts of tool calls."""
    return {"delta": {"tool_calls": list(parts)}}


def part(index: int | None = None, id: str | None = None, name: str | None = None, arguments: Any = None) -> Any:
    """Of a tool call, without what is None."""
    function = {k: v for k, v in {"name": name, "arguments": arguments}.items() if v is not None}
    whole = {"index": index, "id": id, "function": function}
    return {k: v for k, v in whole.items() if v is not None}


async def test_tools_and_the_choice_go_out_in_the_words_of_openai(engine: RemoteEngine, remote: Upstream) -> None:
    body = await sent(
        engine, remote, tools=[WEATHER, TIME], tool_choice=ToolName("get_time"), parallel_tool_calls=False
    )
    weather = {"name": "get_weather", "description": "In a city.", "parameters": {"type": "object"}, "strict": True}
    assert body["tools"] == [
        {"type": "function", "function": weather},
        {"type": "function", "function": {"name": "get_time"}},
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "get_time"}}
    assert body["parallel_tool_calls"] is False
    assert (await sent(engine, remote, tools=[TIME], tool_choice="required"))["tool_choice"] == "required"


async def test_what_is_the_default_anyway_is_left_out(engine: RemoteEngine, remote: Upstream) -> None:
    assert (await sent(engine, remote, tools=[TIME])).keys() == {"messages", "tools"}
    assert (await sent(engine, remote, tool_choice="none", parallel_tool_calls=False)).keys() == {"messages"}


async def test_calls_and_results_of_earlier_turns_go_out(engine: RemoteEngine, remote: Upstream) -> None:
    messages = [
        Message("user", "hi"),
        Message("assistant", "", tool_calls=[ToolCall("c1", "get_time", '{"a": 1}')]),
        Message("tool", "noon", tool_call_id="c1"),
    ]
    body = await sent(engine, remote, messages=messages)
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "get_time", "arguments": '{"a": 1}'}}],
        },
        {"role": "tool", "content": "noon", "tool_call_id": "c1"},
    ]


async def test_text_and_calls_come_one_piece_a_delta_and_end_as_stop(engine: RemoteEngine, remote: Upstream) -> None:
    both = calls(part(0, "c1", "get_weather", ""), part(1, "c2", "get_time", "{"))
    both["delta"]["content"] = "Let me look."
    remote.scripts = [
        streams(
            both,
            calls(part(0, arguments='{"c":')),
            calls(part(0, arguments="1}"), part(1, arguments="}")),
            {"finish_reason": "tool_calls"},
        )
    ]
    deltas = await collect(engine)
    assert deltas[0] == Delta(text="Let me look.")
    assert pieces(deltas) == [
        ToolPiece(0, "get_weather"),
        ToolPiece(1, "get_time", "{"),
        ToolPiece(0, "", '{"c":'),
        ToolPiece(0, "", "1}"),
        ToolPiece(1, "", "}"),
    ]
    assert deltas[-1].finish_reason == "stop"


A, B = ToolPiece(0, "get_a", '{"x":1}'), ToolPiece(1, "get_b", '{"y":2}')


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(
            [calls(part(None, None, "get_a", '{"x":1}'), part(None, None, "get_b", '{"y":2}'))], id="no index, no id"
        ),
        pytest.param(
            [calls(part(None, None, "get_a", {"x": 1})), calls(part(None, None, "get_b", {"y": 2}))], id="objects"
        ),
        pytest.param([calls(part(None, "1", "get_a", '{"x":1}'), part(None, "2", "get_b", '{"y":2}'))], id="no index"),
        pytest.param(
            [calls(part(0, "1", "get_a", '{"x":1}')), calls(part(0, "2", "get_b", '{"y":2}'))], id="index always 0"
        ),
        pytest.param(
            [calls(part(0, None, "get_a", '{"x":1}')), calls(part(0, None, "get_b", '{"y":2}'))],
            id="index always 0, no id",
        ),
        pytest.param(
            [calls(part(3, "", "get_a", '{"x":1}')), calls(part(7, "", "get_b", '{"y":2}'))], id="indexes with holes"
        ),
        pytest.param(
            [
                calls(part(0, "1", "get_"), part(0, "1", "a"), part(0, "1", "", '{"x":1}')),
                calls(part(1, "2", "get_b", '{"y":2}')),
            ],
            id="a name in pieces",
        ),
        pytest.param(
            [
                calls(part(0, "1", "get_a")),
                calls(part(0, "1", "get_a", '{"x":1}')),
                calls(part(1, "2", "get_b", '{"y":2}')),
            ],
            id="a name again",
        ),
        pytest.param(
            [
                {"delta": {"tool_calls": None, "function_call": {"name": "get_a", "arguments": '{"x":1}'}}},
                calls(part(1, "2", "get_b", '{"y":2}')),
            ],
            id="the old form",
        ),
    ],
)
async def test_however_a_server_sends_calls_they_come_out_alike(
    engine: RemoteEngine, remote: Upstream, said: list[dict[str, Any]]
) -> None:
    remote.scripts = [streams(*said)]
    assert pieces(await collect(engine)) == [A, B]


@pytest.mark.parametrize("ids", [("1", None), ("1", "1"), ("1", "2"), (None, None), (None, "2")])
@pytest.mark.parametrize("index", [0, None])
async def test_arguments_in_pieces_belong_to_their_call_whatever_its_ids(
    engine: RemoteEngine, remote: Upstream, index: int | None, ids: tuple[str | None, str | None]
) -> None:
    first, later = ids
    remote.scripts = [
        streams(
            calls(part(index, first, "get_a")),
            calls(part(index, later, None, '{"x"')),
            calls(part(index, later, "", ":1}")),
        )
    ]
    assert pieces(await collect(engine)) == [ToolPiece(0, "get_a", '{"x"'), ToolPiece(0, "", ":1}")]


async def test_a_call_without_arguments_has_an_empty_object(engine: RemoteEngine, remote: Upstream) -> None:
    remote.scripts = [streams(calls(part(0, "1", "get_a")), calls(part(1, "2", "get_b", "")))]
    found = pieces(await collect(engine))
    assert found == [ToolPiece(0, "get_a"), ToolPiece(1, "get_b"), ToolPiece(0, "", "{}"), ToolPiece(1, "", "{}")]


async def test_a_call_without_a_name_fails_the_request(engine: RemoteEngine, remote: Upstream) -> None:
    remote.scripts = [streams(calls(part(0, "1", None, "{}")))]
    with pytest.raises(EngineError, match="without a name"):
        await collect(engine)
