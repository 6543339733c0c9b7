"""What holds for every route of a real gateway: answers as documented, scopes, methods, queries, CORS, slow readers."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from ingress.openapi.document import Documented
from responses.keys import key_digest
from schemas.accounts import SCOPES
from tests.acceptance.stack import RunningStack, running
from tests.document import CheckedClient, routes
from tests.waiting import until

pytestmark = [pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

KEY = "oc-alice"
ADMIN = "oc-admin"
PAGE = "https://app.example.com"
ROUTES = routes()
IDS = {
    "response_id": "resp_" + "0" * 32,
    "conversation_id": "conv_" + "0" * 32,
    "item_id": "msg_" + "0" * 32,
    "model": "synthetic",
    "tenant": "alice",
    "key_id": "key_" + "0" * 32,
    "chat_id": "c",
}
MESSAGES = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
TOOL = {"name": "f", "description": "does it", "parameters": SCHEMA}
FORMAT = {"type": "json_schema", "name": "n", "schema": SCHEMA}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningStack]:
    settings = {
        "api_keys": f"alice={key_digest(KEY)}",
        "admin_keys": key_digest(ADMIN),
        "synthetic_tokens_per_second": "20000",
        "cors_origins": f"{PAGE}, http://localhost:3000",
        "send_timeout_s": "1",
    }
    async with running(tmp_path_factory.mktemp("stack") / "data", "--engine", "synthetic", **settings) as stack:
        yield stack


def client_of(stack: RunningStack, key: str | None = KEY) -> CheckedClient:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return CheckedClient(base_url=stack.url(), headers=headers, timeout=30)


def plain(stack: RunningStack, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=stack.url(), headers=headers, timeout=30)


def path_of(route: Documented) -> str:
    return re.sub(r"{(\w+)}", lambda found: IDS[found[1]], route.path)


def key_of(route: Documented) -> str:
    return ADMIN if route.operation.scope == "admin" else KEY


ASKED: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": MESSAGES}),
    ("/v1/chat/completions", {"messages": MESSAGES, "logprobs": True, "top_logprobs": 2}),
    ("/v1/chat/completions", {"messages": MESSAGES, "tools": [{"type": "function", "function": TOOL}]}),
    ("/v1/chat/completions", {"messages": MESSAGES, "metadata": {"synthetic-reasoning": "2"}}),
    ("/v1/chat/completions", {"messages": MESSAGES, "stream_options": {"include_usage": True}, "n": 2}),
    ("/v1/responses", {"input": "hi"}),
    ("/v1/responses", {"input": "hi", "include": ["message.output_text.logprobs"], "top_logprobs": 1}),
    ("/v1/responses", {"input": "hi", "tools": [{"type": "function", **TOOL}], "tool_choice": "required"}),
    ("/v1/responses", {"input": "hi", "metadata": {"synthetic-reasoning": "2"}}),
    ("/v1/responses", {"input": "hi", "text": {"format": FORMAT}, "instructions": "be"}),
    ("/v1/responses", {"input": "hi", "metadata": {"synthetic-fail-after": "1"}}),
    ("/v1/completions", {"prompt": "hi", "logprobs": 1}),
    ("/v1/completions", {"prompt": ["hi", "ho"], "stream_options": {"include_usage": True}}),
]


@pytest.mark.parametrize(("path", "body"), ASKED, ids=range(len(ASKED)))
async def test_what_is_asked_for_comes_as_documented(stack: RunningStack, path: str, body: dict[str, Any]) -> None:
    async with client_of(stack) as client:
        for more in ({}, {"stream": True}):
            limit = {"max_output_tokens" if path == "/v1/responses" else "max_tokens": 6}
            answer = await client.post(path, json={"model": "synthetic"} | limit | body | more)
            assert answer.status_code == 200, answer.text
            where = answer.headers["location"].partition("?")[0]
            for query in ("", "?stream=true", "?stream=true&starting_after=2&speed=1000"):
                assert (await client.get(where + query)).status_code == 200
            last = re.findall(r"^id: (.*)$", answer.text, re.MULTILINE)
            if last:
                seen = await client.get(where + "?stream=true", headers={"last-event-id": last[-1]})
                assert seen.status_code == 204


async def test_everything_else_comes_as_documented(stack: RunningStack) -> None:
    async with client_of(stack) as client:
        for encoding in ("float", "base64"):
            body = {"model": "synthetic", "input": ["a", "b"], "encoding_format": encoding}
            answer = await client.post("/v1/embeddings", json=body)
            assert (await client.get(answer.headers["location"])).json() == answer.json()
        body = {"model": "synthetic", "input": "hi", "background": True, "max_output_tokens": 100_000}
        response = (await client.post("/v1/responses", json=body)).json()["id"]
        assert (await client.get(f"/v1/chat/completions/{response}")).status_code == 400
        assert (await client.post(f"/v1/responses/{response}/cancel")).json()["status"] == "cancelled"
        cancelled = await client.get(f"/v1/chat/completions/{response}")
        assert (cancelled.status_code, cancelled.headers["x-should-retry"]) == (409, "false")
        assert (await client.get(f"/v1/embeddings/{response}")).status_code == 404
        assert (await client.get(f"/v1/responses/{response}/input_items")).json()["data"]
        assert (await client.delete(f"/v1/responses/{response}")).json()["deleted"]
        await check_conversations(client)
        for path in ("/v1/models", "/v1/models/synthetic", "/v1/usage?group_by=model,key,day"):
            assert (await client.get(path)).status_code == 200


async def check_conversations(client: CheckedClient) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"role": "assistant", "content": "yes"},
        call,
        {"type": "function_call_output", "call_id": "c", "output": "4"},
    ]
    made = (await client.post("/v1/conversations", json={"items": items, "metadata": {"title": "t"}})).json()["id"]
    where = f"/v1/conversations/{made}"
    body = {"model": "synthetic", "input": "hi", "conversation": made, "max_output_tokens": 3}
    for metadata in ({}, {"synthetic-reasoning": "1"}):
        assert (await client.post("/v1/responses", json=body | {"metadata": metadata})).status_code == 200
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    items.append({"role": "user", "content": [image]})
    assert (await client.post(f"{where}/items", json={"items": items})).status_code == 200
    found = (await client.get(f"{where}/items?limit=100")).json()["data"]
    assert len(found) == 4 + 2 + 3 + 5
    for item in found:
        assert (await client.get(f"{where}/items/{item['id']}")).status_code == 200
    assert (await client.delete(f"{where}/items/{found[0]['id']}")).status_code == 200
    assert (await client.post(where, json={"metadata": {}})).status_code == 200
    assert (await client.get(where)).status_code == (await client.get("/v1/conversations")).status_code == 200
    assert (await client.delete(where)).json()["deleted"]


async def test_stored_chat_completions_and_forks_come_as_documented(stack: RunningStack) -> None:
    async with client_of(stack) as client:
        messages = [
            {"role": "system", "content": "be"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "4"},
        ]
        asked = {
            "model": "synthetic",
            "messages": messages,
            "metadata": {"topic": "x y"},
            "tools": [{"type": "function", "function": TOOL}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
            "service_tier": "flex",
            "max_tokens": 3,
        }
        where = (await client.post("/v1/chat/completions", json=asked)).headers["location"].partition("?")[0]

        async def is_listed() -> bool:
            page = await client.get("/v1/chat/completions", params={"metadata[topic]": "x y", "model": "synthetic"})
            return len(page.json()["data"]) == 1

        await until(is_listed)
        assert len((await client.get(f"{where}/messages")).json()["data"]) == 4
        changed = await client.post(where, json={"metadata": {"topic": "z"}})
        assert changed.json() == (await client.get(where)).json()
        assert (await client.delete(where)).status_code == 200
        response = await client.post(
            "/v1/responses", json={"model": "synthetic", "input": "hi", "max_output_tokens": 5}
        )
        for more in ({}, {"stream": True}):
            fork = await client.post(f"/v1/responses/{response.json()['id']}/fork", json={"after": 6, **more})
            assert fork.status_code == 200, fork.text


CALL = {"type": "tool-f", "toolCallId": "c", "state": "output-available", "input": {"a": "b"}, "output": {"c": 1}}
PARTS = [{"type": "step-start"}, {"type": "text", "text": "yes"}, CALL, {"type": "data-x", "data": {"y": [1]}}]
CHATS: list[dict[str, Any]] = [
    {},
    {"metadata": {"synthetic-reasoning": "2", "synthetic-tools": "1"}, "tools": [{"type": "function", **TOOL}]},
    {"messages": [{"role": "user", "parts": PARTS[1:2]}, {"id": "m", "role": "assistant", "parts": PARTS}]},
    {"metadata": {"synthetic-fail-after": "1"}},
]


@pytest.mark.parametrize("more", CHATS, ids=range(len(CHATS)))
async def test_chats_of_the_ai_sdk_and_bare_text_come_as_documented(stack: RunningStack, more: dict[str, Any]) -> None:
    async with client_of(stack) as client:
        body = {"id": "a/b", "messages": [{"role": "user", "parts": PARTS[1:2]}], "max_output_tokens": 6}
        answer = await client.post("/api/chat", json=body | more)
        assert answer.status_code == 200, answer.text
        where = answer.headers["location"]
        for query in ("", "?starting_after=2"):
            assert (await client.get(where + query)).status_code == 200
        assert (await client.get("/api/chat/a%2Fb/stream")).status_code == 204
        assert (await client.get("/api/chat/a%2Fb/stream?starting_after=0")).status_code == 200
        assert (await client.post("/api/chat/a%2Fb/stop", json={"activeStreamId": "x"})).status_code == 204
        text = where.removesuffix("/ui") + "/text"
        assert (await client.get(f"{text}?offset=999")).status_code == 400
        if "metadata" not in more:
            assert (await client.get(f"{text}?offset=1")).text == "t0 t1 t2 t3 t4 t5"


async def test_what_administrators_see_comes_as_documented(stack: RunningStack) -> None:
    async with client_of(stack, ADMIN) as admin:
        assert (await admin.post("/admin/tenants", json={"name": "beta", "metadata": {"a": "b"}})).status_code == 201
        assert (await admin.post("/admin/tenants", json={"name": "beta"})).status_code == 409
        made = (await admin.post("/admin/keys", json={"tenant": "beta", "limits": {"a": 1}})).json()
        where = f"/admin/keys/{made['id']}"
        assert (await admin.post(f"{where}/rotate")).status_code == 201
        for path in (where, f"{where}/revoke"):
            assert (await admin.request("POST" if "revoke" in path else "GET", path)).status_code == 200
        assert (await admin.post("/admin/tenants/beta", json={"disabled": True})).status_code == 200
        for path in ("tenants/beta", "tenants", "keys", "audit?limit=1", "usage?group_by=tenant,hour"):
            assert (await admin.get(f"/admin/{path}")).status_code == 200
    async with client_of(stack, None) as nobody:
        for route in ROUTES:
            if route.operation.scope is None:
                assert (await nobody.get(route.path)).status_code == 200


async def test_each_route_needs_the_scope_that_it_is_documented_with(stack: RunningStack) -> None:
    async with client_of(stack, ADMIN) as admin:
        await admin.post("/admin/tenants", json={"name": "scoped"})
        keys = {}
        for scope in SCOPES:
            body = {"tenant": "scoped", "scopes": [other for other in SCOPES if other != scope]}
            keys[scope] = (await admin.post("/admin/keys", json=body)).json()["key"]
    for scope, key in keys.items():
        async with client_of(stack, key) as client:
            for route in ROUTES:
                if route.operation.scope in SCOPES:
                    answer = await client.request(route.methods[0], path_of(route), content=b"{}")
                    assert (answer.status_code == 403) == (route.operation.scope == scope), (route.path, answer.text)


async def test_every_route_refuses_queries_and_methods_that_it_does_not_have(stack: RunningStack) -> None:
    async with plain(stack) as client:
        for route in ROUTES:
            headers = {"authorization": f"Bearer {key_of(route)}"}
            twice = [f"{known.name}=1&{known.name}=1" for known in route.operation.query if not known.repeats]
            for query in ("nonsense=1", "non%FFsense=1", *twice[:1]):
                answer = await client.request(route.methods[0], f"{path_of(route)}?{query}", headers=headers)
                assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value"), route.path
                assert answer.json()["error"]["param"] is not None
            there = {method for other in ROUTES if other.path == route.path for method in other.methods}
            allowed = {method.upper() for method in there} | ({"HEAD"} if "get" in there else set())
            for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - allowed:
                answer = await client.request(method, path_of(route), headers=headers)
                assert answer.status_code == 405, (method, route.path)
                assert set(answer.headers["allow"].split(", ")) == allowed
            assert (await client.request(route.methods[0], path_of(route) + "/", headers=headers)).status_code == 404


async def test_head_is_get_without_content(stack: RunningStack) -> None:
    async with plain(stack, authorization=f"Bearer {KEY}") as client:
        for path in ("/healthz", "/docs", "/v1/models", "/v1/responses/none"):
            head, get = await client.head(path), await client.get(path)
            assert head.status_code == get.status_code
            assert head.content == b""
            assert head.headers["content-type"] == get.headers["content-type"]
        body = {"model": "synthetic", "input": "hi", "max_output_tokens": 100_000, "stream": True}
        async with client.stream("POST", "/v1/responses", json=body) as stream:
            where = stream.headers["location"]
            head = await client.head(where)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-type"].startswith("text/event-stream")
            assert (await client.get(where.partition("?")[0])).json()["status"] == "in_progress"


def preflight(*headers: str, origin: str = PAGE, method: str = "POST") -> dict[str, str]:
    """What a browser sends before it lets a page send the request."""
    asked = {"access-control-request-method": method, "access-control-request-headers": ", ".join(headers)}
    return {"origin": origin, **asked}


async def test_a_page_of_an_allowed_origin_asks_and_reads_everything(stack: RunningStack) -> None:
    """The headers are those of OpenAI's client in a browser."""
    sent = ("authorization", "content-type", "x-stainless-lang", "x-stainless-retry-count", "last-event-id")
    async with plain(stack, origin=PAGE) as page:
        for path, method in (("/v1/chat/completions", "POST"), ("/v1/responses/x", "DELETE"), ("/v1/none", "GET")):
            answer = await page.options(path, headers=preflight(*sent, method=method))
            assert (answer.status_code, answer.content) == (204, b"")
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert method in answer.headers["access-control-allow-methods"]
            assert answer.headers["access-control-allow-headers"] == ", ".join(sent)
            assert answer.headers["x-request-id"].startswith("req_")
        body = {"model": "synthetic", "messages": MESSAGES, "max_tokens": 3, "stream": True}
        key = {"authorization": f"Bearer {KEY}"}
        answers = [
            await page.post("/v1/chat/completions", json=body, headers=key),
            await page.post("/v1/chat/completions", json=body),
            await page.get("/v1/none"),
            await page.put("/v1/models"),
            await page.post("/v1/responses", content=b"{", headers=key),
        ]
        assert [answer.status_code for answer in answers] == [200, 401, 404, 405, 400]
        for answer in answers:
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert answer.headers["access-control-expose-headers"] == "*"
            assert "access-control-allow-credentials" not in answer.headers
            assert "Origin" in answer.headers["vary"]
        assert answers[0].text.endswith("data: [DONE]\n\n")


async def test_a_page_of_another_origin_may_not(stack: RunningStack) -> None:
    async with plain(stack) as page:
        answer = await page.options("/v1/responses", headers=preflight(origin="https://evil.example.com"))
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "origin")
        answer = await page.get("/healthz", headers={"origin": "https://evil.example.com"})
        for one in (answer, await page.get("/healthz")):
            assert one.status_code == 200
            assert "access-control-allow-origin" not in one.headers


async def test_who_does_not_read_a_stream_is_cut_off_as_if_he_had_left(stack: RunningStack) -> None:
    large = {"top_logprobs": 20, "metadata": {"synthetic-tokens-per-second": "2000"}, "max_output_tokens": 1_000_000}
    body = json.dumps({"model": "synthetic", "input": "hi", "stream": True, **large})
    headers = f"host: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    async with plain(stack, authorization=f"Bearer {KEY}") as client:
        before = rss_bytes(stack)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", stack.port))
            sock.sendall(f"POST /v1/responses HTTP/1.1\r\n{headers}{body}".encode())
            where = re.search(rb"location: ([^?\r]+)", sock.recv(2048))
            assert where is not None

            async def is_cut_off() -> bool:
                return "openchat_readers_stalled_total 1.0" in (await client.get("/metrics")).text

            await until(is_cut_off, what="the end of the patience")

        async def is_cancelled() -> bool:
            status = (await client.get(where[1].decode())).json()["status"]
            assert status in ("in_progress", "cancelled"), "too short to show anything"
            return bool(status == "cancelled")

        await until(is_cancelled, what="the end of what nobody reads")
        assert rss_bytes(stack) < before + (64 << 20)


def rss_bytes(stack: RunningStack) -> int:
    """Of the gateway."""
    status = Path(f"/proc/{stack.pids()['ingress-1']}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024
