"""`openchat up --engine openai` in front of another OpenChat: every part is a real process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.acceptance.stack import RunningStack, running
from tests.waiting import until

pytestmark = pytest.mark.timeout(240)

QUESTION: dict[str, Any] = {"model": "synthetic", "input": "hi", "stream": True}
LONG = 2000


@pytest.fixture
async def behind(tmp_path: Path) -> AsyncIterator[RunningStack]:
    """The API that the stack in front asks: one slot, 50 tokens a second."""
    async with running(tmp_path / "behind", "--engine", "synthetic", slots="1") as stack:
        yield stack


@pytest.fixture
async def front(tmp_path: Path, behind: RunningStack) -> AsyncIterator[RunningStack]:
    arguments = ("--engine", "openai", "--model", "synthetic")
    settings = {"openai_base_url": f"{behind.url()}/v1", "openai_timeout_s": "5"}
    async with running(tmp_path / "front", *arguments, **settings) as stack:
        yield stack


async def text_of(stack: RunningStack, tokens: int) -> str:
    stream = await stack.client().responses.create(**QUESTION, max_output_tokens=tokens)
    return "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])


async def begin(stack: RunningStack, **changes: Any) -> tuple[Any, str]:
    """A stream that has shown a token, and its id."""
    stream = await stack.client().responses.create(**(QUESTION | {"max_output_tokens": LONG} | changes))
    response_id = ""
    async for event in stream:
        if event.type == "response.created":
            response_id = event.response.id
        if event.type == "response.output_text.delta":
            break
    return stream, response_id


async def test_the_text_the_end_and_the_usage_are_those_of_the_api_behind(
    front: RunningStack, behind: RunningStack
) -> None:
    assert await text_of(front, 20) == await text_of(behind, 20) == "".join(f" t{i}" for i in range(20))
    answer = await front.client().responses.create(model="synthetic", input="hi", max_output_tokens=5)
    assert answer.status == "incomplete"
    assert answer.usage is not None
    assert answer.usage.output_tokens == 5
    chat = await front.client().chat.completions.create(
        model="synthetic", messages=[{"role": "user", "content": "hi"}], max_tokens=5
    )
    assert chat.choices[0].finish_reason == "length"


async def test_a_client_that_hangs_up_frees_the_slot_of_the_api_behind(
    front: RunningStack, behind: RunningStack
) -> None:
    stream, _ = await begin(front)
    waiting = asyncio.create_task(text_of(behind, 3))
    left = time.monotonic()
    await stream.close()
    assert await waiting == " t0 t1 t2"
    assert time.monotonic() - left < 2.0


async def test_a_cancel_frees_the_slot_of_the_api_behind(front: RunningStack, behind: RunningStack) -> None:
    stream, response_id = await begin(front, background=True)
    await stream.close()
    assert (await front.client().responses.cancel(response_id)).status == "cancelled"
    async with asyncio.timeout(3):
        assert await text_of(behind, 3) == " t0 t1 t2"


async def test_an_api_that_dies_in_the_middle_gives_a_clear_error_and_serves_again_when_it_is_back(
    front: RunningStack, behind: RunningStack
) -> None:
    stream, response_id = await begin(front)
    behind.kill("ingress-1")
    end = [event async for event in stream][-1]
    assert end.type == "response.failed"
    assert end.response.error.code == "upstream_broke_off"
    stored = await front.client().responses.retrieve(response_id)
    assert stored.output_text.startswith(" t0"), "what was shown is kept"

    async def serves() -> bool:
        try:
            return await text_of(front, 3) == " t0 t1 t2"
        except openai.InternalServerError:
            return False

    await until(serves, timeout_s=60, what="the API behind, started again")


async def test_what_the_api_behind_refuses_says_why(tmp_path: Path, behind: RunningStack) -> None:
    settings = {"openai_base_url": f"{behind.url()}/v1"}
    async with running(tmp_path / "front", "--engine", "openai", "--model", "other", **settings) as front:
        failed = await front.client().responses.create(model="other", input="hi")
        assert failed.status == "failed"
        assert failed.error is not None
        assert "'other' does not exist" in failed.error.message
        with pytest.raises(openai.APIStatusError, match="'other' does not exist"):
            await front.client().chat.completions.create(model="other", messages=[{"role": "user", "content": "hi"}])
