"""The routes of the app with what the document says of them, and answers held against it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import httpx
import msgspec
from fastapi import FastAPI

from ingress.app import create_app
from ingress.gateway import Gateway
from ingress.openapi.document import Documented, documented_routes
from ingress.openapi.operation import Parameter
from schemas.answers.common import ErrorAnswer
from schemas.answers.response_events import ErrorEvent
from schemas.settings import Settings


@cache
def app() -> FastAPI:
    """An app without a gateway: its routes and its document."""
    return create_app(cast(Gateway, SimpleNamespace(settings=Settings())))


def routes() -> list[Documented]:
    """All of them."""
    return documented_routes(app().state.routes)


def route_of(method: str, path: str) -> Documented:
    """The one that answers this."""
    for route in routes():
        pattern = re.sub(r"{\w+}", "[^/]+", re.sub(r"{(chat_id|model)}", ".+", route.path))
        if method.lower() in route.methods and re.fullmatch(pattern, path):
            return route
    raise AssertionError(f"{method} {path} is not in the document")


class CheckedClient(httpx.AsyncClient):
    """Every answer that it gets must be one of those that the document has."""

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        answer = await super().send(request, **options)
        await answer.aread()
        check(answer)
        return answer


def check(answer: httpx.Response) -> None:
    """Status, headers and content. AssertionError for anything that is not documented."""
    route = route_of(answer.request.method, answer.request.url.path)
    where = f"{answer.request.method} {route.path} {answer.status_code}"
    errors = [error for error in route.errors if error.status == answer.status_code]
    shown = route.operation.answers.get(answer.status_code)
    assert shown is not None or errors, f"{where} is not documented: {answer.text}"
    assert "x-request-id" in answer.headers, where
    if shown is None:
        body = msgspec.json.decode(answer.content, type=ErrorAnswer)
        assert answer.status_code >= 500 or body.error.code in {error.code for error in errors}, f"{where}: {body}"
        return
    _check_headers(answer, shown.headers, where)
    media_type = answer.headers.get("content-type", "").partition(";")[0]
    if media_type == "text/event-stream":
        assert shown.events, where
        for data in data_of(answer.text):
            fits(data, (*shown.events, ErrorEvent), where)
    elif shown.types:
        assert media_type == "application/json", where
        fits(answer.json(), shown.types, where)
    else:
        assert media_type == shown.text.partition(";")[0], where


def _check_headers(answer: httpx.Response, headers: Iterable[Parameter], where: str) -> None:
    for header in headers:
        text = answer.headers.get(header.name)
        assert text is not None or not header.is_required, f"{where} lacks {header.name}"
        if text is not None:
            msgspec.convert(text, header.type, strict=False)


def data_of(stream: str) -> list[Any]:
    """What stands behind `data:`, but for the word of the end."""
    lines = re.findall(r"^data: (.*)$", stream, re.MULTILINE)
    return [json.loads(line) for line in lines if line != "[DONE]"]


def fits(value: Any, kinds: tuple[Any, ...], where: str) -> None:
    """It is one of these."""
    why = []
    for kind in kinds:
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as exc:
            why.append(f"{kind}: {exc}")
        else:
            return
    raise AssertionError(f"{where}: {json.dumps(value)[:2000]} is none of what is documented: {why}")
