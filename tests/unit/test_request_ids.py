"""The id of a request is on every answer, also where the server made an error, and on every line that it writes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from ingress.answer_headers import answer_headers
from ingress.app import create_app
from ingress.gateway import Gateway
from ingress.tails import Tail
from responses.directory import Served
from schemas.events import Accepted, Entry, EntryId, Fence, InProgress, LogEvent, Queued
from schemas.ids import ResponseId, new_response_id
from schemas.requests import GenerationRequest
from schemas.settings import Settings
from telemetry.logs import setup_logging
from telemetry.request_ids import current_request_id, note_request_id

log = logging.getLogger("openchat.test")


@pytest.fixture
def as_configured() -> Iterator[None]:
    """The logging of the command line, taken back afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield setup_logging("info")
    root.handlers[:], root.level = before


async def test_lines_name_the_request_that_is_served_and_its_tasks_inherit_it(
    as_configured: None, capsys: pytest.CaptureFixture[str]
) -> None:
    async def serve(request_id: str) -> None:
        note_request_id(request_id)
        await asyncio.sleep(0)
        log.info("one id=%s", "x")
        await asyncio.create_task(asyncio.to_thread(log.info, "two"))

    setup_logging("info")  # again: standard error is another while it is captured
    await asyncio.gather(serve("a-1"), serve("b-2"))
    log.info("three")
    lines = [line.partition("openchat.test ")[2] for line in capsys.readouterr().err.splitlines()]
    assert sorted(lines) == [
        "one id=x request_id=a-1",
        "one id=x request_id=b-2",
        "three",
        "two request_id=a-1",
        "two request_id=b-2",
    ]
    assert current_request_id() == ""


async def test_an_error_that_nobody_foresaw_has_the_id_too() -> None:
    transport = httpx.ASGITransport(
        create_app(cast(Gateway, SimpleNamespace(settings=Settings()))), raise_app_exceptions=False
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        answer = await client.get("/v1/models", headers={"x-request-id": "mine-1"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine-1")
        assert answer.json()["error"]["code"] == "server_error"
        for given in ("", "a b", "x" * 129, "ü"):
            answer = await client.get("/nowhere", headers={"x-request-id": given.encode()})
            assert answer.headers["x-request-id"].startswith("req_")
            assert answer.headers["openai-processing-ms"].isdigit()


class Directory:
    """Knows one model."""

    def known(self, name: str) -> Served | None:
        return Served(name=name, model=name, engine="local, vllm") if name == "模型" else None


def tail(model: str, *more: tuple[EntryId, LogEvent]) -> Tail:
    response_id: ResponseId = new_response_id()
    request = GenerationRequest(model=model)
    accepted = Accepted(t=0, id=response_id, tenant="a", format="chat", at_ms=1, request=request)
    first = [(EntryId(0, 1), accepted), (EntryId(0, 2), Queued(t=0, lane="interactive"))]
    return Tail(response_id, [Entry(*one) for one in (*first, *more)])


def headers(shown: Tail) -> tuple[str, str | None, str]:
    gateway: Any = type("Parts", (), {"directory": Directory()})
    found = answer_headers(gateway, shown)
    assert found["x-openchat-response-id"] == shown.id
    for value in found.values():
        value.encode("ascii")
    return found["x-openchat-model"], found.get("x-openchat-engine"), found["x-openchat-attempts"]


def test_headers_name_the_engine_that_began_it_and_the_attempts_that_count() -> None:
    assert headers(tail("m")) == ("m", None, "0")
    assert headers(tail("模型")) == ("%E6%A8%A1%E5%9E%8B", "local, vllm", "0")
    begun = tail(
        "模型",
        (EntryId(1, 0), Fence(t=1, consumer="w-a", boot="a")),
        (EntryId(1, 3), InProgress(t=1, engine="synthetic")),
        (EntryId(2, 0), Fence(t=2, consumer="w-a", boot="a", released=True)),
        (EntryId(3, 0), Fence(t=3, consumer="w-b", boot="b")),
    )
    assert headers(begun)[1:] == ("synthetic", "2")
