"""Several upstreams for one model: who is asked, who is asked next, and when nobody is."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from prometheus_client import REGISTRY

from engine.base import Delta
from engine.registry import create_engine
from engine.remote.engine import RemoteEngine
from schemas.errors import EngineError, SettingsError, UpstreamBrokeOff, UpstreamRefused, UpstreamUnavailable
from schemas.models import ModelEntry, UpstreamEntry
from schemas.requests import EmbeddingInput
from schemas.settings import Settings
from tests.remotes import Make, collect, generation, making, over, text
from tests.upstream import Call, Script, Upstream, answers, says, sends, upstream
from tests.waiting import until


@pytest.fixture
async def servers() -> AsyncIterator[list[Upstream]]:
    """Three, which say their number."""
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(upstream()) for _ in range(3)]
        for number, server in enumerate(made):
            server.scripts = [says(str(number))]
        yield made


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    async with making("") as make:
        yield make


@pytest.fixture(autouse=True)
def long_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than a test, and than the patience of a request: whoever waited for one would be seen."""
    monkeypatch.setattr("engine.remote.health._FIRST_REST_S", 1000.0)
    monkeypatch.setattr("engine.remote.health._LONGEST_REST_S", 1000.0)


def counts(servers: list[Upstream]) -> list[int]:
    return [len(server.calls) for server in servers]


def metric(server: Upstream, outcome: str) -> float:
    labels = {"upstream": server.url.removeprefix("http://"), "outcome": outcome}
    return REGISTRY.get_sample_value("openchat_upstream_requests_total", labels) or 0.0


def is_resting(server: Upstream) -> bool:
    labels = {"upstream": server.url.removeprefix("http://")}
    return bool(REGISTRY.get_sample_value("openchat_upstream_resting", labels))


def after(*scripts: Script, then: Script) -> list[Script]:
    return [*scripts, then]


async def hangs(call: Call) -> None:
    await call.left.wait()


async def cuts(call: Call) -> None:
    call.cut()


async def test_the_weights_are_roughly_kept(servers: list[Upstream], make: Make) -> None:
    weights = (1.0, 2.0, 5.0)
    engine = make(upstreams=[UpstreamEntry(url=s.url, weight=w) for s, w in zip(servers, weights, strict=True)])
    for _ in range(20):
        await asyncio.gather(*(text(engine) for _ in range(16)))
    shares = [count / 320 for count in counts(servers)]
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share - weight / 8) < 0.07, shares


BROKEN = {
    "429": answers(429),
    "500": answers(500),
    "503": answers(503, retry_after="60"),
    "401": answers(401),
    "403": answers(403),
    "cut": cuts,
    "cut after the head": sends(cut=True),
    "ended without a word": sends(b": hello\n\n"),
    "nonsense": sends(b"data: nonsense\n\n"),
    "an error in the stream": sends(b'data: {"error": {"message": "overloaded"}}\n\n'),
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_an_upstream_that_fails_is_left_for_another_at_once_and_rests(
    servers: list[Upstream], make: Make, broken: str
) -> None:
    bad, good, _ = servers
    bad.scripts = [BROKEN[broken]]
    engine = make(upstreams=[*over(bad.url, weight=1e6), *over(good.url)])
    assert await text(engine) == "1"
    assert is_resting(bad)
    assert await text(engine) == "1"
    assert counts([bad, good]) == [1, 2]
    assert (metric(bad, "failed"), metric(good, "served")) == (1.0, 2.0)


async def test_an_upstream_that_is_away_or_hangs_is_left_as_well(servers: list[Upstream], make: Make) -> None:
    async with upstream() as gone:
        away = gone.url
    hanging, good, _ = servers
    hanging.scripts = [hangs]
    engine = make(timeout_s=1, upstreams=[*over(away, hanging.url, weight=1e6), *over(good.url)])
    assert [await text(engine) for _ in range(3)] == ["1", "1", "1"]
    assert hanging.calls[0].left.is_set()


@pytest.mark.parametrize("has_head", [True, False])
async def test_who_is_silent_is_asked_once_its_queue_would_begin_anew(
    servers: list[Upstream], make: Make, has_head: bool
) -> None:
    async def silent(call: Call) -> None:
        if has_head:
            await call.begin()
        await call.left.wait()

    servers[0].scripts = [silent]
    with pytest.raises(EngineError):
        await collect(make(timeout_s=1, upstreams=over(servers[0].url)))
    assert len(servers[0].calls) == 1


async def test_an_empty_delta_tells_that_another_is_tried(servers: list[Upstream], make: Make) -> None:
    servers[0].scripts = [answers(500)]
    engine = make(upstreams=[*over(servers[0].url, weight=1e6), *over(servers[1].url)])
    deltas = [delta async for delta in engine.generate(generation())]
    assert deltas == [Delta(), Delta(text="1"), Delta(finish_reason="stop", output_tokens=1)]


@pytest.mark.parametrize(
    "first", [{"content": "a"}, {"reasoning": "a"}, {"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]
)
async def test_after_the_first_piece_no_other_is_asked(
    servers: list[Upstream], make: Make, first: dict[str, Any]
) -> None:
    async def script(call: Call) -> None:
        await call.begin()
        await call.event({"choices": [{"delta": first}]})
        call.cut()

    for server in servers:
        server.scripts = [script]
    engine = make(upstreams=over(*(server.url for server in servers)))
    with pytest.raises(UpstreamBrokeOff):
        await collect(engine)
    assert sum(counts(servers)) == 1
    broken = next(server for server in servers if server.calls)
    assert metric(broken, "broke_off") == 1.0
    assert is_resting(broken)


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_a_request_that_is_at_fault_is_refused_once(servers: list[Upstream], make: Make, status: int) -> None:
    for server in servers:
        server.scripts = [answers(status)]
    engine = make(upstreams=over(*(server.url for server in servers)))
    with pytest.raises(UpstreamRefused, match="so it is"):
        await collect(engine)
    assert sum(counts(servers)) == 1
    asked = next(server for server in servers if server.calls)
    assert metric(asked, "refused") == 1.0
    assert not is_resting(asked)


async def test_the_tries_of_one_request_are_bounded_and_the_last_error_is_told(
    servers: list[Upstream], make: Make
) -> None:
    for server in servers:
        server.scripts = [answers(503, {"error": {"message": "full"}}, retry_after="0.01")]
    engine = make(upstreams=over(*(server.url for server in servers)))
    with pytest.raises(UpstreamUnavailable, match="full"):
        await collect(engine)
    assert sum(counts(servers)) == 6
    assert min(counts(servers)) >= 1


async def test_an_upstream_that_refuses_the_key_is_asked_once_by_a_request(servers: list[Upstream], make: Make) -> None:
    bad, limited, _ = servers
    bad.scripts = [answers(401)]
    limited.scripts = [answers(429, retry_after="0.01")]
    environ = {"KEY_A": "secret-a", "KEY_B": "secret-b"}
    engine = make(upstreams=[*over(bad.url, key="KEY_A"), *over(limited.url, key="KEY_B")], environ=environ)
    with pytest.raises(UpstreamUnavailable, match="429"):
        await collect(engine)
    assert counts([bad, limited]) == [1, 4]
    assert bad.calls[0].headers["authorization"] == "Bearer secret-a"
    assert limited.calls[0].headers["authorization"] == "Bearer secret-b"
    alone = make(upstreams=over(bad.url, key="KEY_A"), environ=environ)
    with pytest.raises(EngineError, match="set KEY_A") as caught:
        await collect(alone)
    assert "secret" not in str(caught.value)


async def test_it_waits_as_long_as_it_was_told(servers: list[Upstream], make: Make) -> None:
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def busy(call: Call) -> None:
        times.append(loop.time())
        await call.answer(429, {}, retry_after="0.7")

    async def free(call: Call) -> None:
        times.append(loop.time())
        await says("a")(call)

    servers[0].scripts = [busy, free]
    assert await text(make(upstreams=over(servers[0].url))) == "a"
    assert 0.7 <= times[1] - times[0] < 3.0


async def test_who_asked_to_be_left_alone_for_long_is_not_asked_meanwhile(servers: list[Upstream], make: Make) -> None:
    for server in servers[:2]:
        server.scripts = [answers(429, retry_after="60")]
    engine = make(upstreams=over(servers[0].url, servers[1].url))
    with pytest.raises(UpstreamUnavailable, match="429"):
        await collect(engine)
    with pytest.raises(UpstreamUnavailable, match="left alone"):
        await collect(engine)
    assert counts(servers[:2]) == [1, 1]


async def test_where_all_rest_by_our_own_judgement_a_new_request_tries_at_once(
    servers: list[Upstream], make: Make
) -> None:
    servers[0].scripts = after(answers(401), answers(401), then=says("a"))
    engine = make(upstreams=over(servers[0].url))
    for _ in range(2):
        with pytest.raises(EngineError, match="refused this server's key"):
            await collect(engine)
    assert is_resting(servers[0])
    assert await text(engine) == "a"
    assert not is_resting(servers[0])


async def test_where_all_rest_the_one_that_recovers_first_is_tried_first(servers: list[Upstream], make: Make) -> None:
    engine = make(upstreams=over(*(server.url for server in servers)))
    for server in servers:
        server.scripts = after(answers(401), then=server.scripts[0])
    with pytest.raises(EngineError):
        await collect(engine)
    assert all(is_resting(server) for server in servers)
    for one, until_s in zip(engine._upstreams, (3e6, 1e6, 2e6), strict=True):
        one.health.rests_until = until_s
    assert await text(engine) == "1"


async def test_rested_it_is_tried_by_one_and_then_serves_its_share_again(
    servers: list[Upstream], make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    hurt, good, _ = servers
    release = asyncio.Event()

    async def slow(call: Call) -> None:
        await release.wait()
        await says("0")(call)

    hurt.scripts = after(answers(500, retry_after="0.05"), slow, then=says("0"))
    engine = make(upstreams=[*over(hurt.url, weight=1e6), *over(good.url)])
    assert await text(engine) == "1"
    await until(lambda: not is_resting(hurt), timeout_s=5)
    probe = asyncio.create_task(text(engine))
    await until(lambda: len(hurt.calls) == 2, timeout_s=5)
    assert [await text(engine) for _ in range(3)] == ["1", "1", "1"], "the others do not wait for the probe"
    release.set()
    assert await probe == "0"
    assert [await text(engine) for _ in range(3)] == ["0", "0", "0"]
    assert Counter(record.message.split()[0] for record in caplog.records if "upstream_" in record.message) == {
        "upstream_rests": 1,
        "upstream_serves": 1,
    }


async def test_a_probe_that_its_client_leaves_makes_room_for_another(servers: list[Upstream], make: Make) -> None:
    hurt, good, _ = servers
    hurt.scripts = after(answers(500, retry_after="0.05"), hangs, then=says("0"))
    engine = make(upstreams=[*over(hurt.url, weight=1e6), *over(good.url)])
    assert await text(engine) == "1"
    await until(lambda: not is_resting(hurt), timeout_s=5)
    probe = asyncio.create_task(text(engine))
    await until(lambda: len(hurt.calls) == 2, timeout_s=5)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    assert await text(engine) == "0"
    assert metric(hurt, "left") == 1.0


async def test_many_at_once_go_through_a_failure_together(servers: list[Upstream], make: Make) -> None:
    servers[0].scripts = [answers(500)]
    servers[1].scripts = [cuts]
    engine = make(upstreams=over(*(server.url for server in servers)))
    assert await asyncio.gather(*(text(engine) for _ in range(64))) == ["2"] * 64


async def test_embeddings_fail_over_as_well(servers: list[Upstream], make: Make) -> None:
    servers[0].scripts = [answers(500)]
    servers[1].scripts = [answers(200, {"data": [{"embedding": [1.0], "index": 0}]})]
    engine = make(upstreams=[*over(servers[0].url, weight=1e6), *over(servers[1].url)])
    assert (await engine.embed(EmbeddingInput(inputs=["a"]))).vectors == [[1.0]]
    assert counts(servers[:2]) == [1, 1]


async def test_each_upstream_has_its_own_name_for_the_model(servers: list[Upstream], make: Make) -> None:
    entries = [UpstreamEntry(url=servers[0].url, model="theirs", weight=1e6), UpstreamEntry(url=servers[1].url)]
    servers[0].scripts = [answers(500)]
    await text(make(upstreams=entries, upstream_model="ours"))
    assert servers[0].calls[0].body["model"] == "theirs"
    assert servers[1].calls[0].body["model"] == "ours"
    assert servers[1].calls[0].headers["authorization"] == "Bearer none", (
        "the key of the settings is for their URL alone"
    )


async def test_it_checks_well_whatever_its_upstreams_do(servers: list[Upstream], make: Make) -> None:
    servers[0].scripts = [answers(401)]
    engine = make(upstreams=over(servers[0].url, servers[0].url))
    said: list[str] = []
    await engine.start(said.append)
    with pytest.raises(EngineError):
        await collect(engine)
    await engine.check()
    assert [line.split(",")[0] for line in said] == [
        f"requests go to 127.0.0.1:{servers[0].port}/v1",
        f"requests go to 127.0.0.1:{servers[0].port}/v1#2",
    ]


def test_a_key_that_is_not_set_is_named() -> None:
    entry = ModelEntry(name="m", engine="openai", upstreams=over("https://host/v1", key="THE_KEY"))
    for environ in ({}, {"THE_KEY": " "}):
        with pytest.raises(SettingsError, match=r"model 'm': set THE_KEY"):
            create_engine(entry, Settings(), environ)
    assert isinstance(create_engine(entry, Settings(), {"THE_KEY": "x"}), RemoteEngine)
