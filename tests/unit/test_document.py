"""The OpenAPI document, and the app around the routes."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import httpx
import msgspec
import pytest

from ingress import app as app_module
from ingress.app import create_app
from ingress.cors import parse_origins
from ingress.gateway import Gateway
from ingress.openapi.docstrings import field_docstrings
from ingress.wire import BUILT_IN, CHAT
from schemas.admin import parse_admin_body
from schemas.answers.common import Error
from schemas.api import parse_body
from schemas.errors import SettingsError
from schemas.settings import Settings
from tests.document import app, routes

DOCUMENT = app().openapi()
OPERATIONS = {(path, method): one for path, methods in DOCUMENT["paths"].items() for method, one in methods.items()}
SCHEMAS = DOCUMENT["components"]["schemas"]


def app_with(**settings: Any) -> Any:
    return create_app(cast(Gateway, SimpleNamespace(settings=Settings(**settings))))


def references(value: Any) -> Iterator[str]:
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(part, str) and part.startswith("#/"):
            yield part
        yield from references(part)


def test_every_route_of_the_app_is_in_the_document() -> None:
    served = [route for route in app().state.routes if route.include_in_schema]
    there = {(re.sub(r":\w+}", "}", r.path), m.lower()) for r in served for m in r.methods - {"HEAD"}}
    assert there == set(OPERATIONS), "say at the route what it does: @documented"


def test_operations_have_names_of_their_own_summaries_and_known_variables() -> None:
    names = [one["operationId"] for one in OPERATIONS.values()]
    assert len(set(names)) == len(names)
    for (path, _), one in OPERATIONS.items():
        assert one["summary"]
        assert {"200", "201"} & one["responses"].keys()
        variables = {parameter["name"] for parameter in one.get("parameters", []) if parameter["in"] == "path"}
        assert variables == set(re.findall(r"{(\w+)}", path))


def test_every_reference_leads_somewhere_and_nothing_is_left_over() -> None:
    found = set(references(DOCUMENT))
    for reference in found:
        place: Any = DOCUMENT
        for key in reference[2:].split("/"):
            place = place[key.replace("~1", "/")]
    schemas = {reference.rpartition("/")[2] for reference in found if "/schemas/" in reference}
    assert schemas == SCHEMAS.keys()


def test_it_is_json_with_patterns_that_every_reader_knows() -> None:
    text = json.dumps(DOCUMENT)
    assert not re.search(r"\\\\[AZ]", text)
    assert json.loads(text) == msgspec.json.decode(msgspec.json.encode(DOCUMENT))


def test_a_body_says_what_is_taken_beside_its_fields() -> None:
    body = SCHEMAS["ResponsesBody"]
    assert body["additionalProperties"] is False
    assert {"type": "null"} in body["properties"]["temperature"]["anyOf"]
    assert body["properties"]["model"] == {"type": "string", "maxLength": 512}
    assert body["properties"]["best_of"]["enum"][-1] is None
    assert SCHEMAS["MessageItem"]["required"] == ["role", "content"]


def test_errors_are_told_by_status_and_code() -> None:
    answers = OPERATIONS["/v1/responses/{response_id}", "get"]["responses"]
    not_found = answers["404"]["content"]["application/json"]["schema"]["allOf"][1]
    codes = not_found["properties"]["error"]["properties"]["code"]["enum"]
    assert codes == ["response_not_found", "route_not_found"]
    assert "www-authenticate" in answers["401"]["headers"]
    assert "retry-after" in answers["503"]["headers"]
    assert OPERATIONS["/healthz", "get"]["security"] == []
    assert OPERATIONS["/admin/keys", "post"]["security"] == [{"admin": []}]
    assert OPERATIONS["/v1/embeddings", "post"]["security"] == [{"key": ["embeddings"]}]


def test_examples_of_bodies_are_taken() -> None:
    found = [route.operation for route in routes() if route.operation.example]
    assert len(found) >= 10
    for operation in found:
        raw = json.dumps(operation.example).encode()
        if operation.scope == "admin":
            assert parse_admin_body(raw, operation.body)
        else:
            assert parse_body(raw, operation.body, unsupported="reject").body


def test_fields_are_described_by_what_stands_below_them() -> None:
    assert field_docstrings(Error)["code"] == "Stable, for programs."
    assert SCHEMAS["Error"]["properties"]["code"]["description"] == "Stable, for programs."


def test_what_a_package_adds_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class LinesBody(CHAT.body, frozen=True, kw_only=True):  # type: ignore[misc, name-defined]
        """Lines."""

    bare = msgspec.structs.replace(
        CHAT, format="lines", path="/v1/lines", body=LinesBody, tag="Other formats", shows=None, events=(Any,)
    )
    monkeypatch.setattr(app_module, "load_wires", lambda: [*BUILT_IN, bare])
    document = app_with().openapi()
    made = document["paths"]["/v1/lines"]["post"]
    assert made["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/LinesBody"}
    assert set(made["responses"]["200"]["content"]) == {"text/plain", "text/event-stream"}
    assert "/v1/lines/{response_id}" in document["paths"]


async def test_document_and_page_can_be_turned_off() -> None:
    for is_on in (True, False):
        transport = httpx.ASGITransport(app_with(docs=is_on))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            statuses = [(await client.get(path)).status_code for path in ("/openapi.json", "/docs")]
        assert statuses == ([200, 200] if is_on else [404, 404])


async def test_a_query_parameter_that_is_not_there_is_refused_or_left_out_with_a_warning() -> None:
    for setting, status in (("reject", 400), ("warn", 200)):
        transport = httpx.ASGITransport(app_with(unsupported_parameters=setting))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            answer = await client.get("/healthz?colour=red&%00=1")
            assert answer.status_code == status
            assert answer.headers.get("x-openchat-warnings") == (None if status == 400 else "colour, ?")


async def test_a_defect_is_an_error_in_the_same_shape_with_the_headers_of_every_answer() -> None:
    """The gateway without parts can not tell whether it is ready."""
    transport = httpx.ASGITransport(app_with(cors_origins="*"), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        answer = await client.get("/readyz", headers={"origin": "https://x.example.com", "x-request-id": "mine"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "server_error")
    assert answer.headers["x-request-id"] == "mine"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    "text", ["example.com", "https://a.example.com/", "https://a.example.com/path", "null x", "https://"]
)
def test_an_origin_that_no_browser_sends_is_refused(text: str) -> None:
    assert parse_origins(" https://a.example.com , http://localhost:3000,") == [
        "https://a.example.com",
        "http://localhost:3000",
    ]
    assert parse_origins("*") == ["*"]
    with pytest.raises(SettingsError, match="OPENCHAT_CORS_ORIGINS"):
        parse_origins(f"https://a.example.com,{text}")


def test_every_answer_of_every_route_is_typed() -> None:
    """Any would fit everything; only what is no object of ours may be it."""
    kinds = {one.path: [*shown.types, *shown.events] for one in routes() for shown in one.operation.answers.values()}
    loose = {path for path, found in kinds.items() if any(kind in (Any, dict) for kind in found)}
    assert loose <= {"/openapi.json"}
    assert list(itertools.chain(*kinds.values()))
