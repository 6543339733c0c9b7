"""A tenant finds nothing of another: every route of the app is tried with another's ids.

A new route fails the first test until it is in one of the tables below: say there with what it is tried.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
import pytest_asyncio

from ingress.app import create_app
from ingress.gateway import Gateway
from responses.keys import key_digest
from schemas.ids import ResponseId, chat_id, completion_id, embedding_id
from schemas.settings import Settings
from tests.acceptance.stack import RunningStack, running
from tests.waiting import until

pytestmark = [pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

MARKER = "between-us-8c1f"
KEYS = {"alice": "oc-alice", "bob": "oc-bob"}
ADMIN = "oc-admin"
Route = tuple[str, str]
"""Method and path."""

OF_NOBODY: set[Route] = {("GET", path) for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs")}
"""They answer everybody, and say nothing of anybody."""

OF_NOTHING: set[Route] = {("POST", "/v1/responses/compact"), ("POST", "/v1/responses/input_tokens")}
"""They are not served."""

OF_ALL: set[Route] = {("GET", "/v1/models"), ("GET", "/v1/models/{model:path}")}
"""They answer every tenant the same."""

OF_ADMINISTRATORS = "/admin/"
"""No tenant's key opens them."""

MESSAGE = {"role": "user", "content": MARKER}
ASKING: dict[Route, dict[str, Any]] = {
    ("POST", "/v1/chat/completions"): {
        "model": "synthetic",
        "messages": [MESSAGE],
        "max_tokens": 3,
        "metadata": {"title": MARKER},
    },
    ("POST", "/v1/responses"): {"model": "synthetic", "input": MARKER, "max_output_tokens": 3},
    ("POST", "/v1/completions"): {"model": "synthetic", "prompt": MARKER, "max_tokens": 3},
    ("POST", "/v1/embeddings"): {"model": "synthetic", "input": MARKER},
}
CONVERSATIONS = "/v1/conversations"
CONVERSATION = {"items": [{"type": "message", **MESSAGE}], "metadata": {"title": MARKER}}
UI_MESSAGES = [{"id": "1", "role": "user", "parts": [{"type": "text", "text": MARKER}]}]
CHAT = {"id": "my chat/1", "messages": UI_MESSAGES, "max_output_tokens": 3}
MAKING: dict[Route, dict[str, Any]] = {
    **ASKING,
    ("POST", CONVERSATIONS): CONVERSATION,
    ("POST", "/api/chat"): CHAT,
}
"""They make something of the caller's own."""

NAMED_BY_CALLERS: set[Route] = {("GET", "/api/chat/{chat_id:path}/stream"), ("POST", "/api/chat/{chat_id:path}/stop")}
"""The id in their path is one that the caller has made up: another's is like one that nobody has used."""

COMPLETIONS = "/v1/chat/completions"
LISTING: set[Route] = {("GET", "/v1/usage"), ("GET", CONVERSATIONS), ("GET", COMPLETIONS)}
"""They answer with what is the caller's own."""

BODIES: dict[Route, dict[str, Any]] = {
    ("POST", COMPLETIONS + "/{response_id}"): {"metadata": {"title": "taken"}},
    ("POST", CONVERSATIONS + "/{conversation_id}"): {"metadata": {"title": "taken"}},
    ("POST", CONVERSATIONS + "/{conversation_id}/items"): {"items": CONVERSATION["items"]},
    ("POST", "/v1/responses/{response_id}/fork"): {"after": 0},
}
"""For routes with an id in their path: what is sent where a body is needed."""

NAMING: list[tuple[str, str]] = [("previous_response_id", "response_id"), ("conversation", "conversation_id")]
"""Fields of POST /v1/responses that name something, and what it is."""


def routes_in(routes: Iterable[Any], prefix: str = "") -> Iterator[Route]:
    """Of an app: newer FastAPI keeps the routers that were included, older ones their routes. HEAD is GET."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from routes_in(inner.routes, prefix + route.include_context.prefix)
        else:
            yield from ((method, prefix + route.path) for method in route.methods - {"HEAD"})


APP = create_app(cast(Gateway, SimpleNamespace(settings=Settings())))
ROUTES = sorted(routes_in(APP.routes))
WITH_ID = [
    (method, path)
    for method, path in ROUTES
    if "{" in path and (method, path) not in OF_ALL | NAMED_BY_CALLERS and not path.startswith(OF_ADMINISTRATORS)
]


async def test_every_route_is_tried_here() -> None:
    known = OF_NOBODY | OF_ALL | OF_NOTHING | MAKING.keys() | LISTING | NAMED_BY_CALLERS | set(WITH_ID)
    assert [route for route in ROUTES if route not in known and not route[1].startswith(OF_ADMINISTRATORS)] == []
    assert known <= set(ROUTES), "the tables name what is not there"
    shown = {(m.upper(), path) for path, methods in APP.openapi()["paths"].items() for m in methods}
    served = {(method, re.sub(r":\w+}", "}", path)) for method, path in set(ROUTES) - OF_NOTHING}
    assert shown == served, "say at the route what it does: @documented"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningStack]:
    data_dir: Path = tmp_path_factory.mktemp("stack") / "data"
    keys = ",".join(f"{tenant}={key_digest(key)}" for tenant, key in KEYS.items())
    async with running(
        data_dir,
        *("--engine", "synthetic"),
        gateways=2,
        api_keys=keys,
        admin_keys=key_digest(ADMIN),
        synthetic_tokens_per_second="20",
        log_ttl_s="1",
        drain_grace_s="1",
    ) as stack:
        yield stack


def client_of(stack: RunningStack, key: str | None, gateway: int = 1) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.AsyncClient(base_url=stack.url(gateway), headers=headers, timeout=60)


class Belongings:
    """What Alice has, by the names that ids have in paths."""

    def __init__(self) -> None:
        self.ids: dict[str, list[str]] = {"response_id": [], "conversation_id": [], "item_id": []}

    def add_response(self, shown: str) -> None:
        """In every form that an id of a response can be written in."""
        response_id = ResponseId(f"resp_{shown.rpartition('-')[2].removeprefix('resp_')}")
        forms = (str, chat_id, completion_id, embedding_id)
        self.ids["response_id"] += [form(response_id) for form in forms]

    def paths(self, route: Route) -> Iterator[tuple[str, str]]:
        """The path with Alice's ids, and with ids that nobody has."""
        names = re.findall(r"{(\w+)[:}]", route[1])
        for ids in itertools.product(*(self.ids[name] for name in names)):
            given = dict(zip(names, ids, strict=True))
            path = re.sub(r":\w+}", "}", route[1])
            nobodys = {name: re.sub("[0-9a-f]{8}(?=$|_)", "0" * 8, found) for name, found in given.items()}
            yield path.format(**given), path.format(**nobodys)

    def appear_in(self, text: str) -> bool:
        digits = {found for ids in self.ids.values() for name in ids for found in re.findall(r"[0-9a-f]{32}", name)}
        return MARKER in text or any(found in text for found in digits)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def belongings(stack: RunningStack) -> Belongings:
    """One response by each API, archived by now; one that is only in the broker; one that is being generated."""
    found = Belongings()
    async with client_of(stack, KEYS["alice"]) as alice:
        for (_, path), body in ASKING.items():
            answer = await alice.post(path, json=body)
            assert answer.status_code == 200, answer.text
            found.add_response(answer.headers["location"].partition("?")[0].rpartition("/")[2])
        found.ids["conversation_id"].append((await alice.post(CONVERSATIONS, json=CONVERSATION)).json()["id"])
        items = await alice.get(f"{CONVERSATIONS}/{found.ids['conversation_id'][0]}/items")
        found.ids["item_id"] += [item["id"] for item in items.json()["data"]]
        body = {"model": "synthetic", "input": MARKER, "background": True, "max_output_tokens": 16}
        for more in ({"store": False, "max_output_tokens": 2}, {"max_output_tokens": 4000}):
            found.add_response((await alice.post("/v1/responses", json=body | more)).json()["id"])
    return found


STREAMED = {path + "/{response_id}" for _, path in ASKING if path != "/v1/embeddings"}


async def snapshot(stack: RunningStack, belongings: Belongings) -> list[tuple[int, str]]:
    """What Alice sees of what has ended."""
    seen = []
    async with client_of(stack, KEYS["alice"], 2) as alice:
        for response_id in belongings.ids["response_id"][:-4:4]:
            for path in ("responses", "embeddings"):
                answer = await alice.get(f"/v1/{path}/{response_id}")
                seen.append((answer.status_code, answer.text))
        for conversation_id in belongings.ids["conversation_id"]:
            for path in ("", "/items"):
                answer = await alice.get(f"{CONVERSATIONS}/{conversation_id}{path}")
                seen.append((answer.status_code, answer.text))
    return seen


def without_ids(text: str, path: str) -> str:
    """An answer that may repeat what was in the path."""
    for part in path.split("/"):
        text = text.replace(part, "ID") if re.search(r"[0-9a-f]{32}$", part) else text
    return text


def is_running(answer: httpx.Response) -> bool:
    return bool(answer.json()["status"] in ("queued", "in_progress"))


async def test_anothers_id_is_like_one_that_nobody_has_and_nothing_happens_to_what_it_names(
    stack: RunningStack, belongings: Belongings
) -> None:
    before = await until(lambda: complete_snapshot(stack, belongings), what="the end of what is short")
    async with client_of(stack, KEYS["bob"], 2) as bob, client_of(stack, KEYS["alice"]) as alice:
        for method, template in WITH_ID:
            for path, nobodys in belongings.paths((method, template)):
                for query in ("", "?stream=true") if method == "GET" and template in STREAMED else ("",):
                    body = BODIES.get((method, template))
                    found, missing = [await bob.request(method, one + query, json=body) for one in (path, nobodys)]
                    assert found.status_code == missing.status_code == 404, (method, path, found.text)
                    assert without_ids(found.text, path) == without_ids(missing.text, nobodys), (method, path)
        assert await snapshot(stack, belongings) == before
        assert is_running(await alice.get(f"/v1/responses/{belongings.ids['response_id'][-4]}"))


async def complete_snapshot(stack: RunningStack, belongings: Belongings) -> list[tuple[int, str]] | None:
    seen = await snapshot(stack, belongings)
    return seen if not any(word in text for _, text in seen for word in ('"queued"', '"in_progress"')) else None


async def test_what_is_for_every_tenant_is_the_same_for_each(stack: RunningStack, belongings: Belongings) -> None:
    async with client_of(stack, KEYS["bob"]) as bob, client_of(stack, KEYS["alice"]) as alice:
        for method, template in OF_ALL:
            path = template.replace("{model:path}", "synthetic")
            answers = [await client.request(method, path) for client in (alice, bob)]
            assert answers[0].status_code == 200
            assert answers[0].text == answers[1].text
    async with client_of(stack, None) as nobody:
        for method, path in OF_NOBODY:
            answer = await nobody.request(method, path)
            assert answer.status_code == 200, path
            assert not belongings.appear_in(answer.text)
            assert not any(tenant in answer.text for tenant in KEYS)


async def test_a_list_has_nothing_of_another(stack: RunningStack, belongings: Belongings) -> None:
    async with client_of(stack, KEYS["bob"]) as bob:
        for method, path in LISTING:
            answer = await bob.request(method, path)
            assert answer.status_code == 200, answer.text
            assert not belongings.appear_in(answer.text)
        for query in ({"after": belongings.ids["conversation_id"][0]}, {"title": MARKER}):
            answer = await bob.get(CONVERSATIONS, params=query)
            assert answer.status_code == 404 or answer.json()["data"] == [], answer.text
        for query in ({"after": chat_id(ResponseId("resp_" + "0" * 32))}, {"metadata[title]": MARKER}):
            assert (await bob.get(COMPLETIONS, params=query)).json()["data"] == []
        usage = (await bob.get("/v1/usage")).json()
        assert [row["requests"] for row in usage["data"]] == [0], "Bob has asked for nothing yet"


async def test_what_one_makes_is_ones_own(stack: RunningStack, belongings: Belongings) -> None:
    async with client_of(stack, KEYS["bob"]) as bob, client_of(stack, KEYS["alice"]) as alice:
        for (_, path), body in MAKING.items():
            answer = await bob.post(path, json=body)
            assert answer.status_code == 200, answer.text
            where = answer.headers.get("location") or f"{path}/{answer.json()['id']}"
            where = where.partition("?")[0]
            assert (await bob.get(where)).status_code == 200
            assert (await alice.get(where)).status_code == 404


async def test_a_chat_that_two_tenants_name_alike_is_two_chats(stack: RunningStack) -> None:
    long = CHAT | {"max_output_tokens": 4000}
    mine = "/api/chat/my chat%2F1"
    async with (
        client_of(stack, KEYS["bob"], 2) as bob,
        client_of(stack, KEYS["alice"]) as alice,
        alice.stream("POST", "/api/chat", json=long) as answer,
    ):
        for path in (mine, "/api/chat/nobody's"):
            assert (await bob.get(f"{path}/stream")).status_code == 204
            assert (await bob.post(f"{path}/stop")).status_code == 204
        async with bob.stream("POST", "/api/chat", json=long):
            assert (await alice.post(f"{mine}/stop")).json()["stopped"] in answer.headers["location"]
            assert (await bob.post(f"{mine}/stop")).status_code == 200


@pytest.mark.parametrize(("field", "name"), NAMING)
async def test_a_request_can_not_name_what_is_anothers(
    stack: RunningStack, belongings: Belongings, field: str, name: str
) -> None:
    body = ASKING["POST", "/v1/responses"]
    nobodys = re.sub("[0-9a-f]{8}$", "0" * 8, belongings.ids[name][0])
    async with client_of(stack, KEYS["bob"]) as bob:
        for given in belongings.ids[name]:
            answer = await bob.post("/v1/responses", json=body | {field: given})
            missing = await bob.post("/v1/responses", json=body | {field: nobodys})
            assert answer.status_code == missing.status_code == 404, answer.text
            assert answer.json()["error"]["code"] == missing.json()["error"]["code"]
            assert MARKER not in answer.text


async def test_without_a_key_nothing_opens_and_a_tenants_key_opens_nothing_of_the_administrators(
    stack: RunningStack, belongings: Belongings
) -> None:
    ids = {name: found[0] for name, found in belongings.ids.items()} | {
        "model": "synthetic",
        "tenant": "alice",
        "key_id": "key_" + "0" * 32,
        "chat_id": "c",
    }
    for key in (None, "oc-wrong", KEYS["bob"]):
        async with client_of(stack, key) as client:
            for method, template in set(ROUTES) - OF_NOBODY:
                if key == KEYS["bob"] and not template.startswith(OF_ADMINISTRATORS):
                    continue
                path = re.sub(r":\w+}", "}", template).format(**ids)
                answer = await client.request(method, path, json={})
                assert answer.status_code in (401, 403), (method, path, answer.text)
                assert not belongings.appear_in(answer.text)
