"""The engine `openai` against a server that behaves as well, and as badly, as the test says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from engine.base import Delta
from engine.remote.engine import RemoteEngine, remote_engine
from schemas.errors import EngineError, SettingsError, UpstreamBrokeOff, UpstreamRefused, UpstreamUnavailable
from schemas.models import ModelEntry
from schemas.settings import Settings
from tests.remotes import KEY, Make, collect, generation, making
from tests.upstream import Call, Upstream, answers, sends, upstream
from tests.waiting import until

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 5}}


@pytest.fixture
async def remote() -> AsyncIterator[Upstream]:
    async with upstream() as server:
        yield server


@pytest.fixture
async def make(remote: Upstream) -> AsyncIterator[Make]:
    async with making(remote.url) as make:
        yield make


@pytest.fixture
def engine(make: Make) -> RemoteEngine:
    return make()


async def well(call: Call) -> None:
    await call.begin()
    await call.event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    await call.chunk("a")
    await call.chunk("b")
    await call.chunk(finish="stop")
    await call.event({"choices": [], "usage": USAGE})
    await call.send(b"data: [DONE]\n\n")


async def test_the_text_the_reason_and_the_usage_come_through(engine: RemoteEngine, remote: Upstream) -> None:
    remote.scripts = [well]
    *steps, last = await collect(engine)
    assert steps == [Delta(text="a"), Delta(text="b")]
    assert last == Delta(finish_reason="stop", input_tokens=7, output_tokens=3, cached_tokens=5)


async def test_the_request_says_what_was_asked_and_nothing_else(make: Make, remote: Upstream) -> None:
    remote.scripts = [well]
    await collect(make(), instructions="be brief", max_output_tokens=9, temperature=0.0, stop=["x"], seed=1)
    await collect(make(args={"top_k": 3}))
    first, second = (call.body for call in remote.calls)
    assert first == {
        "model": "m-1",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
        "temperature": 0.0,
        "stop": ["x"],
        "seed": 1,
    }
    assert second["top_k"] == 3
    assert "temperature" not in second
    assert "max_tokens" not in second
    assert remote.calls[0].headers["authorization"] == f"Bearer {KEY}"


def test_openai_itself_gets_the_name_of_the_limit_that_its_newer_models_take() -> None:
    from engine.remote.api import _limit_name

    assert _limit_name("api.openai.com") == "max_completion_tokens"
    assert _limit_name("mine.openai.azure.com") == "max_completion_tokens"
    assert _limit_name("openai.com.example.org") == "max_tokens"


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_server_that_is_busy_is_asked_again_before_anything_was_said(
    engine: RemoteEngine, remote: Upstream, status: int
) -> None:
    remote.scripts = [answers(status, retry_after="0.05"), well]
    assert (await collect(engine))[-1].finish_reason == "stop"
    assert len(remote.calls) == 2


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (429, UpstreamUnavailable, "too many requests"),
        (500, UpstreamUnavailable, "so it is"),
        (401, EngineError, "set OPENAI_API_KEY"),
        (403, EngineError, "set OPENAI_API_KEY"),
        (400, UpstreamRefused, "so it is"),
        (404, UpstreamRefused, "so it is"),
        (422, UpstreamRefused, "so it is"),
        (501, UpstreamRefused, "so it is"),
    ],
)
async def test_a_refusal_has_a_clear_error(
    engine: RemoteEngine, remote: Upstream, status: int, error: type[Exception], words: str
) -> None:
    remote.scripts = [answers(status, retry_after="0.01")]
    with pytest.raises(error, match=words) as caught:
        await collect(engine)
    assert KEY not in str(caught.value)


async def test_a_refusal_that_is_no_json_is_shown_cut(engine: RemoteEngine, remote: Upstream) -> None:
    remote.scripts = [answers(400, b"<html>" + b"x" * 10_000)]
    with pytest.raises(UpstreamRefused) as caught:
        await collect(engine)
    assert len(caught.value.message) < 1000


async def test_a_server_that_is_away_is_unavailable(make: Make) -> None:
    async with upstream() as gone:
        url = gone.url
    with pytest.raises(UpstreamUnavailable, match="can not be reached"):
        await collect(make(url=url))


@pytest.mark.parametrize("cut", [True, False])
async def test_a_stream_that_ends_in_the_middle_says_so(engine: RemoteEngine, remote: Upstream, cut: bool) -> None:
    remote.scripts = [sends(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n', cut=cut)]
    with pytest.raises(UpstreamBrokeOff):
        await collect(engine)
    assert len(remote.calls) == 1, "a stream that began is never asked for again"


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (b'data: {"error":{"message":"out of memory"}}\n\n', "out of memory"),
        (b'data: {"error":"out of memory"}\n\n', "out of memory"),
        (b"data: nonsense\n\n", "not in OpenAI's format"),
        (b'data: {"choices":[{"delta":{"content":5}}]}\n\n', "not in OpenAI's format"),
        (b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n', "not in OpenAI's format"),
        (b'data: {"choices":[{"delta":{},"finish_reason":"magic"}]}\n\n', "magic"),
        (b"data: " + b"x" * (5 << 20), "too long"),
    ],
)
async def test_nonsense_in_a_stream_fails_this_request_only(
    engine: RemoteEngine, remote: Upstream, part: bytes, words: str
) -> None:
    remote.scripts = [sends(part), well]
    with pytest.raises(EngineError, match=words):
        await collect(engine)
    assert (await collect(engine))[-1].finish_reason == "stop"


async def test_lines_may_end_and_be_cut_anywhere(engine: RemoteEngine, remote: Upstream) -> None:
    stream = (
        b": ping\r\n\r\nevent: message\r\n"
        b'data:{"choices":[{"delta":{"content":"\xe2\x82\xac"}}],"usage":null}\r\n\r\n'
        b'data: {"choices":[{"delta":{"content":null},"finish_reason":"length"}]}\n\n'
        b"data:[DONE]"
    )
    remote.scripts = [sends(*(stream[i : i + 1] for i in range(len(stream))))]
    first, last = await collect(engine)
    assert first.text == "€"
    assert (last.finish_reason, last.output_tokens) == ("length", 1), "without a usage the deltas are counted"


async def test_what_the_upstream_filtered_ends_as_filtered(engine: RemoteEngine, remote: Upstream) -> None:
    async def script(call: Call) -> None:
        await call.begin()
        await call.chunk("a")
        await call.chunk(finish="content_filter")

    remote.scripts = [script]
    assert (await collect(engine))[-1].finish_reason == "content_filter"


async def test_a_server_that_falls_silent_is_given_up(make: Make, remote: Upstream) -> None:
    async def silent(call: Call) -> None:
        await call.begin()
        await call.chunk("a")
        await call.left.wait()

    remote.scripts = [silent]
    with pytest.raises(UpstreamBrokeOff, match="ReadTimeout"):
        await collect(make(timeout_s=1))


async def test_leaving_a_generation_closes_the_connection(engine: RemoteEngine, remote: Upstream) -> None:
    async def endless(call: Call) -> None:
        await call.begin()
        while not call.left.is_set():
            await call.chunk("a")
            await asyncio.wait([asyncio.ensure_future(call.left.wait())], timeout=0.01)

    remote.scripts = [endless]
    stream = engine.generate(generation())
    await anext(stream)
    await stream.aclose()
    await until(lambda: remote.calls[0].left.is_set(), timeout_s=1, what="the closed connection")


async def test_neither_the_key_nor_the_prompt_is_logged(
    engine: RemoteEngine, remote: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    remote.scripts = [answers(500, retry_after="0.01")]
    with pytest.raises(UpstreamUnavailable):
        await collect(engine, instructions="the secret plan")
    assert KEY not in caplog.text
    assert "secret plan" not in caplog.text


@pytest.mark.parametrize("url", ["", "host/v1", "ftp://host/v1", "http:///v1"])
def test_a_url_that_can_not_be_used_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="OPENCHAT_OPENAI_BASE_URL"):
        remote_engine(ModelEntry(name="m", engine="openai"), Settings(openai_base_url=url), {})


async def test_it_starts_while_the_upstream_is_away_and_says_where_it_goes(make: Make) -> None:
    said: list[str] = []
    engine = make(slots=3)
    await engine.start(said.append)
    await engine.check()
    assert engine.capacity == 3
    assert "127.0.0.1" in said[0]
    assert KEY not in said[0]
