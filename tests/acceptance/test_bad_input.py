"""What a client can get wrong gets a clear error in OpenAI's shape, and the service goes on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from streams.connect import Broker
from streams.dead import DeadLetters
from streams.embedded import broker_url
from tests.acceptance.stack import RunningStack, running
from tests.waiting import until

pytestmark = [pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

CHAT: dict[str, Any] = {"model": "synthetic", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningStack]:
    data_dir: Path = tmp_path_factory.mktemp("stack") / "data"
    settings = {
        "max_body_bytes": "300000",
        "synthetic_tokens_per_second": "500",
        "unstored_ttl_s": "1",
    }
    async with running(data_dir, "--engine", "synthetic", **settings) as stack:
        yield stack


async def post(stack: RunningStack, body: Any, path: str = "/v1/chat/completions") -> httpx.Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.post(stack.url() + path, content=raw)


BAD_CHATS: list[tuple[Any, int, str | None, str]] = [
    (b"", 400, None, "not valid JSON"),
    (b"{", 400, None, "not valid JSON"),
    (b"\xff\xfe", 400, None, "not valid JSON"),
    (b"[" * 100_000, 400, None, "not valid JSON"),
    (b'{"model":' * 20_000 + b"1" + b"}" * 20_000, 400, None, "not valid JSON"),
    (b'{"tools": ' + b"[" * 200 + b"]" * 200 + b"}", 400, None, "deeper than 128"),
    (b'{"model": "a\xff"}', 400, None, "not valid JSON"),
    (b'{"model": "\\ud800"}', 400, None, "not valid JSON"),
    (b'{"model": "\\ud83d\\ud83d"}', 400, None, "not valid JSON"),
    (b'{"model": "a\x00b"}', 400, None, "not valid JSON"),
    (b'{"model": "m", "temperature": NaN}', 400, None, "not valid JSON"),
    (b'{"model": "m", "temperature": Infinity}', 400, None, "not valid JSON"),
    (b'{"model": "m", "seed": ' + b"9" * 100_000 + b"}", 400, None, "not valid JSON"),
    (b'\xef\xbb\xbf{"model": "m"}', 400, None, "not valid JSON"),
    (b'{"model": "m"} {}', 400, None, "not valid JSON"),
    (b"null", 400, None, "must be a JSON object"),
    ([], 400, None, "must be a JSON object"),
    ({}, 400, "model", "model"),
    ({"model": "synthetic"}, 400, "messages", "messages"),
    (CHAT | {"messages": []}, 400, "messages", "length"),
    (CHAT | {"messages": "hi"}, 400, "messages", "array"),
    (CHAT | {"messages": [{"role": "user"}]}, 400, "messages[0].content", "content"),
    (CHAT | {"messages": [{"role": "wizard", "content": "x"}]}, 400, "messages[0].role", "wizard"),
    (CHAT | {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, 400, None, "input_audio"),
    (
        CHAT | {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y"}}]}]},
        400,
        "messages[0].content[0].image_url",
        "links are not fetched",
    ),
    (CHAT | {"model": "gpt-9"}, 404, "model", "gpt-9"),
    (CHAT | {"model": "a}b\r\nx: y"}, 404, "model", "does not exist"),
    (CHAT | {"max_tokens": -1}, 400, "max_tokens", ">= 1"),
    (CHAT | {"max_tokens": 1e400}, 400, None, ""),
    (CHAT | {"max_tokens": "7"}, 400, "max_tokens", "int"),
    (CHAT | {"max_completion_tokens": 3}, 400, "max_tokens", "not both"),
    (CHAT | {"temperature": 3}, 400, "temperature", "<= 2"),
    (CHAT | {"stop": ["a"] * 5}, 400, "stop", "length"),
    (CHAT | {"seed": 10**30}, 400, "seed", "int"),
    (CHAT | {"stream": "yes"}, 400, "stream", "bool"),
    (CHAT | {"metadata": {"a": 1}}, 400, "metadata[...]", "str"),
    (CHAT | {"temprature": 1}, 400, "temprature", "temperature"),
    (CHAT | {"n": 129}, 400, "n", "<= 128"),
    (CHAT | {"reasoning_effort": "low"}, 400, "reasoning_effort", "capability 'reasoning_effort'"),
    (CHAT | {"stream_options": {"include_obfuscation": True}}, 400, "stream_options.include_obfuscation", "padded"),
    (CHAT | {"tools": [{"type": "function"}]}, 400, "tools[0].function", "missing"),
    (CHAT | {"tools": [{"type": "web_search"}]}, 400, "tools[0].type", "web_search"),
    (CHAT | {"tool_choice": "required"}, 400, "tool_choice", "no tools"),
    (CHAT | {"response_format": {"type": "json_schema"}}, 400, "response_format.json_schema", "schema"),
    (CHAT | {"top_logprobs": 3}, 400, "top_logprobs", "logprobs"),
    (CHAT | {"messages": [{"role": "tool", "content": "4"}]}, 400, "messages[0].tool_call_id", "tool_call_id"),
    (CHAT | {"messages": [{"role": "user", "content": "x" * 400_000}]}, 413, None, "larger than"),
]


@pytest.mark.parametrize(("body", "status", "param", "words"), BAD_CHATS, ids=range(len(BAD_CHATS)))
async def test_a_bad_chat_body_names_the_field(
    stack: RunningStack, body: Any, status: int, param: str | None, words: str
) -> None:
    answer = await post(stack, body)
    error = answer.json()["error"]
    assert answer.status_code == status, error
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert words in error["message"]
    if param is not None:
        assert error["param"] == param
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "synthetic"}, "input"),
        ({"model": "synthetic", "input": 1}, "input"),
        ({"input": "x"}, "model"),
        ({"model": "synthetic", "input": "x", "reasoning": {"effort": "low"}}, "reasoning.effort"),
        ({"model": "synthetic", "input": "x", "reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"model": "synthetic", "input": "x", "text": {"verbosity": "low"}}, "text.verbosity"),
    ],
)
async def test_a_bad_responses_body_names_the_field(stack: RunningStack, body: Any, param: str) -> None:
    answer = await post(stack, body, "/v1/responses")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_a_body_that_is_too_large_without_a_length_is_cut_off(stack: RunningStack) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 10_000

    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.post(f"{stack.url()}/v1/responses", content=chunks())
    assert answer.status_code == 413


async def test_parameters_that_ask_for_nothing_are_taken(stack: RunningStack) -> None:
    neutral = {"n": 1, "logprobs": False, "tools": [], "response_format": {"type": "text"}, "stop": None, "user": "u"}
    answer = await post(stack, CHAT | neutral | {"max_tokens": None, "max_completion_tokens": 3})
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == " t0 t1 t2"
    assert answer.json()["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "route_not_found"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/responses/x", 404, "response_not_found"),
        ("GET", "/v1/responses/resp_" + "0" * 32, 404, "response_not_found"),
        ("GET", "/v1/responses/resp_" + "0" * 32 + "?stream=true", 404, "response_not_found"),
        ("GET", "/v1/responses/resp_" + "0" * 31 + "*", 404, "response_not_found"),
        ("GET", "/v1/responses/%2E%2E%00", 404, "response_not_found"),
        ("GET", "/v1/chat/completions/chatcmpl-" + "f" * 32, 404, "response_not_found"),
        ("GET", "/v1/models/none", 404, "model_not_found"),
        ("GET", "/v1/models/", 404, "model_not_found"),
        ("GET", "/v1/responses/", 404, "route_not_found"),
        ("POST", "/v1/responses/", 404, "route_not_found"),
        ("GET", "/v1//responses/x", 404, "route_not_found"),
        ("GET", "/v1/responses/a%2Fb", 404, "route_not_found"),
        ("GET", "/v1/responses/%FF%FE", 404, "response_not_found"),
        ("GET", "/v1/responses/%F0%9F%99%82%0D%0A", 404, "response_not_found"),
        ("GET", "/v1/conversations/%00", 404, "conversation_not_found"),
        ("GET", "/v1/conversations/conv_" + "0" * 32 + "/items/%00", 404, "conversation_not_found"),
        ("OPTIONS", "/v1/responses", 405, "method_not_allowed"),
        ("PUT", "/v1/responses/x", 405, "method_not_allowed"),
        ("GET", "/v1/responses/x?stream=yes", 400, "invalid_value"),
        ("GET", "/v1/responses/x?stream=true&stream=true", 400, "invalid_value"),
        ("GET", "/v1/responses/x?%00=1", 400, "invalid_value"),
        ("GET", "/v1/models?%FF", 400, "invalid_value"),
        ("GET", "/v1/conversations?limit=0", 400, "invalid_value"),
        ("GET", "/v1/conversations?limit=%D9%A1", 400, "invalid_value"),
        ("GET", "/v1/conversations?order=up", 400, "invalid_value"),
        ("GET", "/v1/conversations?after=%00", 404, "conversation_not_found"),
        ("GET", "/v1/conversations?title=" + "x" * 600, 400, "invalid_value"),
        ("GET", "/v1/usage?start=9999999999999", 400, "invalid_value"),
        ("GET", "/v1/usage?start=0001-01-01T00:00:00%2B01:00", 400, "invalid_value"),
    ],
)
async def test_a_wrong_address_is_an_error_in_the_same_shape(
    stack: RunningStack, method: str, path: str, status: int, code: str
) -> None:
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.request(method, stack.url() + path)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (status, code, "invalid_request_error")
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "", "9" * 16, "999"])
async def test_a_cursor_that_is_none_of_this_stream_is_an_error(stack: RunningStack, cursor: str) -> None:
    location = (await post(stack, CHAT)).headers["location"]
    async with httpx.AsyncClient(base_url=stack.url(), timeout=30) as client:
        answers = [
            await client.get(f"{location}&starting_after={cursor}"),
            await client.get(location, headers={"last-event-id": cursor}),
            await client.get(location, headers={"last-event-id": f"1-{cursor}"}),
        ]
    assert [answer.status_code for answer in answers] == [400, 400, 400]
    assert {answer.json()["error"]["code"] for answer in answers} == {"invalid_cursor"}


@pytest.mark.parametrize("path", ["/v1/responses/{}", "/v1/chat/completions/{}", "/v1/responses/{}?stream=true"])
async def test_a_response_that_was_deleted_or_has_expired_is_not_there(stack: RunningStack, path: str) -> None:
    async with httpx.AsyncClient(base_url=stack.url(), timeout=30) as client:
        body = {"model": "synthetic", "input": "hi", "max_output_tokens": 1}
        for more in ({}, {"store": False}):
            made = (await client.post("/v1/responses", json=body | more)).json()["id"]
            if not more:
                await client.delete(f"/v1/responses/{made}")
            await until(lambda made=made: is_gone(client, path.format(made)))


async def is_gone(client: httpx.AsyncClient, path: str) -> bool:
    answer = await client.get(path)
    assert answer.status_code in (200, 404)
    return answer.status_code == 404 and answer.json()["error"]["code"] == "response_not_found"


@pytest.mark.parametrize(
    "key", [b"Bearer \xff\xfe", b"bearer", b"Basic eDp5", b"Bearer " + b"x" * 9000, b"\xe2\x98\x83"]
)
async def test_a_key_of_any_kind_is_read_without_a_defect(stack: RunningStack, key: bytes) -> None:
    async with httpx.AsyncClient(base_url=stack.url(), timeout=30) as client:
        assert (await client.get("/v1/models", headers={b"authorization": key})).status_code == 200  # none is needed
        answer = await client.get("/admin/keys", headers={b"authorization": key})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "{}", "\N{SNOWMAN}"])
async def test_an_id_of_a_request_that_is_none_is_not_taken(stack: RunningStack, given: str) -> None:
    async with httpx.AsyncClient(base_url=stack.url(), timeout=30) as client:
        answer = await client.get("/healthz", headers={"x-request-id": given.encode()})
        assert answer.headers["x-request-id"].startswith("req_")
        assert (await client.get("/healthz", headers={"x-request-id": "Mine_1.2:3-4"})).headers[
            "x-request-id"
        ] == "Mine_1.2:3-4"


async def test_health_readiness_models_and_metrics_answer(stack: RunningStack) -> None:
    async with httpx.AsyncClient(timeout=30) as client:
        assert (await client.get(f"{stack.url()}/healthz")).json() == {"status": "ok"}
        assert (await client.get(f"{stack.url()}/readyz")).json() == {"status": "ready"}
        assert (await client.get(f"{stack.url()}/v1/models/synthetic")).json()["object"] == "model"
        metrics = (await client.get(f"{stack.url()}/metrics")).text
    assert 'openchat_http_requests_total{route="/healthz",status="200"}' in metrics
    assert "openchat_time_to_first_text_seconds" in metrics


async def test_the_official_client_raises_its_own_error_types(stack: RunningStack) -> None:
    client = stack.client()
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model="none", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model="synthetic", messages=[])
    assert [model.id async for model in client.models.list()] == ["synthetic"]


async def test_an_entry_that_does_not_parse_goes_to_the_dead_letters_and_the_rest_goes_on(stack: RunningStack) -> None:
    broker = Broker(broker_url(stack.data_dir), timeout_s=2, connections=2)
    for fields in ({"request": b"{"}, {"x": b"\x00\xff"}, {"request": b'{"id": 5}'}):
        await broker.commands.xadd("oc:requests:{synthetic:interactive}", fields)

    async def letters() -> bool:
        return await DeadLetters(broker.commands).count() == 3

    await until(letters)
    await broker.close()
    assert (await post(stack, CHAT)).status_code == 200


async def test_text_of_every_kind_comes_through(stack: RunningStack) -> None:
    text = '\x00 \u2028 \\ " </script> 🙂 ' + "\U0010ffff"
    answer = await post(stack, CHAT | {"messages": [{"role": "user", "content": text}], "user": "💥}:{\r\n"})
    assert answer.status_code == 200
    items = [{"role": "user", "content": text}]
    async with httpx.AsyncClient(base_url=stack.url(), timeout=30) as client:
        made = await client.post("/v1/conversations", json={"items": items, "metadata": {"title": text, text: text}})
        where = f"/v1/conversations/{made.json()['id']}"
        assert made.json()["metadata"] == (await client.get(where)).json()["metadata"] == {"title": text, text: text}
        assert (await client.get(f"{where}/items")).json()["data"][0]["content"][0]["text"] == text
        for part in (text, "\x00", "%_\\", "🙂"):
            found = await client.get("/v1/conversations", params={"title": part})
            assert found.status_code == 200, part
        body = {"model": "synthetic", "input": items, "conversation": made.json()["id"], "max_output_tokens": 1}
        assert (await client.post("/v1/responses", json=body | {"metadata": {text: text}})).status_code == 200
