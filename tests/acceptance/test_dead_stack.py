"""`openchat dead` beside a running stack."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from schemas.ids import new_response_id
from schemas.requests import FinishedEntry, GenerationRequest, Message, RequestEntry
from streams.connect import Broker
from streams.dead import DeadLetters
from streams.embedded import broker_url
from streams.finished import FinishedStream
from streams.keys import log_key
from streams.queue import RequestQueue
from tests.acceptance.stack import RunningStack, running
from tests.waiting import until

pytestmark = [pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningStack]:
    data_dir: Path = tmp_path_factory.mktemp("stack") / "data"
    async with running(data_dir, "--engine", "synthetic", synthetic_tokens_per_second="500") as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="module")
async def broker(stack: RunningStack) -> AsyncIterator[Broker]:
    broker = Broker(broker_url(stack.data_dir), timeout_s=2, connections=2)
    yield broker
    await broker.close()


async def dead(stack: RunningStack, *arguments: str) -> tuple[int, str, str]:
    """As an operator calls it who has no settings: exit code, output, errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "openchat", "dead", *arguments, "--data-dir", str(stack.data_dir)),
        env={name: value for name, value in os.environ.items() if not name.startswith("OPENCHAT_")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def letters(stack: RunningStack) -> list[dict[str, Any]]:
    code, out, err = await dead(stack, "list", "--json")
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


async def make_letters(broker: Broker, *fields: dict[str, bytes]) -> None:
    """Requests as a worker finds them that have no log, or do not parse."""
    before = await DeadLetters(broker.commands).count()
    for entry in fields:
        await broker.commands.xadd("oc:requests:{synthetic:interactive}", entry)

    async def are_buried() -> bool:
        return await DeadLetters(broker.commands).count() == before + len(fields)

    await until(are_buried)


async def make_letter(broker: Broker, text: str) -> RequestEntry:
    request = GenerationRequest(model="synthetic", messages=[Message("user", text)], max_output_tokens=4)
    entry = RequestEntry(id=new_response_id(), tenant="default", accepted_at_ms=1, request=request)
    before = await DeadLetters(broker.commands).count()
    await RequestQueue(broker.commands, "synthetic").send("interactive", entry)

    async def is_buried() -> bool:
        return await DeadLetters(broker.commands).count() == before + 1

    await until(is_buried)
    return entry


async def test_a_dead_letter_is_listed_shown_and_sent_again(stack: RunningStack, broker: Broker) -> None:
    entry = await make_letter(broker, "wörld 🙂")
    [letter] = await letters(stack)
    assert (letter["response_id"], letter["reason"], letter["model"]) == (entry.id, "log_gone", "synthetic")
    assert (letter["lane"], letter["tenant"]) == ("interactive", "default")
    code, out, _ = await dead(stack, "list")
    assert code == 0
    head, row, foot = out.splitlines()
    assert head.split()[0] == "letter"
    assert [letter["id"], entry.id, "synthetic", "default", "log_gone"] == [row.split()[i] for i in (0, 3, 4, 5, 6)]
    assert foot == "1 dead letters"
    code, out, _ = await dead(stack, "show", letter["id"])
    assert code == 0
    assert json.loads(out)["body"]["request"]["messages"] == [{"role": "user", "content": "wörld 🙂"}]

    code, out, err = await dead(stack, "requeue", letter["id"])
    assert code == 0, err
    letter_id, response_id, *rest = out.split()
    assert (letter_id, rest) == (letter["id"], ["retry_of", entry.id])
    client = stack.client()

    async def completed() -> Any:
        response = await client.responses.retrieve(response_id)
        return response if response.status not in ("queued", "in_progress") else None

    response = await until(completed)
    assert response.output_text == " t0 t1 t2 t3"
    assert await letters(stack) == []


async def test_what_can_not_be_sent_again_is_said_and_kept_and_the_others_are_sent(
    stack: RunningStack, broker: Broker
) -> None:
    hostile = b'{"id":7,"tenant":"\\u001b[2J","request":"\xff"}'
    await make_letters(broker, {"request": b"{nonsense"}, {"x": b"\x1b[2J"}, {"request": hostile})
    entry = await make_letter(broker, "hi")
    code, out, _ = await dead(stack, "list", "--count", "3")
    assert code == 0
    assert "\x1b" not in out
    assert out.splitlines()[-1] == "4 dead letters, the newest 3 shown"
    for letter in await letters(stack):
        code, out, _ = await dead(stack, "show", letter["id"])
        assert code == 0
        assert json.loads(out)["body"]
        assert "\x1b" not in out
    code, out, err = await dead(stack, "requeue", "--all")
    assert code == 1
    assert f"retry_of {entry.id}" in out
    assert err.count("does not parse") == 3
    assert "3 of 4 dead letters not requeued" in err
    rest = [letter["id"] for letter in await letters(stack)]
    assert len(rest) == 3
    code, out, _ = await dead(stack, "drop", rest[0], rest[0], rest[1])
    assert (code, out.split()) == (0, [rest[0], "dropped", rest[1], "dropped"])
    code, out, _ = await dead(stack, "drop", "--all")
    assert (code, out.split()) == (0, [rest[2], "dropped"])
    assert await letters(stack) == []
    code, out, _ = await dead(stack, "list")
    assert (code, out) == (0, "0 dead letters\n")


@pytest.mark.parametrize("action", ["show", "requeue", "drop"])
async def test_an_unknown_letter_is_an_error(stack: RunningStack, broker: Broker, action: str) -> None:
    for unknown in ("1-1", "nonsense"):
        code, out, err = await dead(stack, action, unknown)
        assert (code, out) == (1, "")
        assert f"no dead letter '{unknown}'" in err


@pytest.mark.parametrize("action", ["requeue", "drop"])
@pytest.mark.parametrize("arguments", [(), ("1-1", "--all")])
async def test_letters_are_named_or_all_are_meant(stack: RunningStack, action: str, arguments: tuple[str, ...]) -> None:
    code, out, err = await dead(stack, action, *arguments)
    assert (code, out) == (2, "")
    assert "--all" in err


async def test_what_was_not_archived_goes_back_to_the_archiver(stack: RunningStack, broker: Broker) -> None:
    response_id = new_response_id()
    await broker.commands.xadd(log_key(response_id), {"event": b"{"}, id="0-1")
    await FinishedStream(broker.commands).send(FinishedEntry(id=response_id, status="completed"))

    async def letter_other_than(letter_id: str) -> str | None:
        found = await DeadLetters(broker.commands).newest(10)
        return found[0].id if found and found[0].id != letter_id else None

    first = await until(lambda: letter_other_than(""), what="a dead letter")
    [letter] = await letters(stack)
    assert (letter["id"], letter["reason"], letter["response_id"]) == (first, "not_archivable", response_id)
    code, out, err = await dead(stack, "requeue", first)
    assert (code, out.split()) == (0, [first, response_id, "to", "the", "archiver"]), err
    second = await until(lambda: letter_other_than(first), what="the letter of the second refusal")
    assert [letter["id"] for letter in await letters(stack)] == [second]
    await broker.commands.unlink(log_key(response_id))
    code, _, err = await dead(stack, "requeue", second)
    assert code == 1
    assert "is gone" in err
    assert (await dead(stack, "drop", second))[0] == 0
