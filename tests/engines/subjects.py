"""The engines that the contract suite runs over, each made as a worker makes it.

By default those of the default environment: `synthetic`, `local`, and `openai` against a real server in a
process of its own. `OPENCHAT_TEST_ENGINE` names another one, as a models file would: `vllm`, `transformers`, or
one from outside the repository. Models of the first two are the folders of `OPENCHAT_TEST_MODELS` (default
`.models`); `OPENCHAT_TEST_MODEL` names them (several with commas; a path, or the name of a folder there).
`OPENCHAT_TEST_EMBEDS=1` loads them to embed: one process need not hold two engines.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.base import Embedder, Engine
from engine.registry import create_engine
from schemas.models import ModelEntry
from schemas.settings import Settings
from tests.engines.llama_server import built_in_model, llama_server

OTHER = os.environ.get("OPENCHAT_TEST_ENGINE", "")
SLOTS = 16
CONTEXT = 512
_EMBEDS = bool(os.environ.get("OPENCHAT_TEST_EMBEDS"))
_MODELS = Path(os.environ.get("OPENCHAT_TEST_MODELS", ".models"))
_BUILT_HERE = ("tiny-llama", "smollm2-135m")
_GIVEN = os.environ.get("OPENCHAT_TEST_ARGS", "")
"""`args` of the model entry, as JSON."""
_VLLM_ARGS = {
    "tool_parser": "hermes",
    # so small a model writes blanks for ever wherever a grammar lets it
    "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
}
_ARGS: dict[str, Any] = json.loads(_GIVEN) if _GIVEN else _VLLM_ARGS if OTHER == "vllm" else {}

Decode = Callable[[list[int]], Awaitable[str]]


@dataclass
class Subject:
    """One started engine and what the suite knows about its model."""

    name: str
    engine: Engine
    entry: ModelEntry
    settings: Settings
    decode: Decode | None = None
    """Text of token ids; None: not known to the suite."""
    is_fluent: bool = True
    """The model has learnt a language: it answers a plain question, and goes on with a row of emoji."""
    forces_calls: bool = True
    """A call that must be made is made; llama.cpp's server takes `tool_choice` as a wish."""

    @property
    def has_ids(self) -> bool:
        return self.engine.capabilities.continues


def names() -> list[str]:
    """What the suite is parametrised with."""
    if not OTHER:
        return ["synthetic", "local", "openai"]
    given = os.environ.get("OPENCHAT_TEST_MODEL", "")
    models = [name.strip() for name in given.split(",") if name.strip()]
    if not models and OTHER in ("vllm", "transformers"):
        models = [name for name in _BUILT_HERE if (_MODELS / name / "config.json").exists()]
    return [f"{OTHER}:{model}" for model in models] or [f"{OTHER}:"]


def settings() -> Settings:
    return Settings(slots=SLOTS, local_context=CONTEXT, synthetic_tokens_per_second=2_000.0)


@asynccontextmanager
async def subject(name: str) -> AsyncIterator[Subject]:
    """The engine of that name, started; closed twice at the end, which must be harmless."""
    make = {"synthetic": _synthetic, "local": _local, "openai": _openai}.get(name, lambda: _other(name))
    async with make() as made:
        await made.engine.start(print)
        try:
            yield made
        finally:
            await made.engine.close()
            await made.engine.close()


@asynccontextmanager
async def embedder(of: Subject) -> AsyncIterator[Embedder]:
    """It, where it can embed; else the same model loaded to embed. Skips the test where that can not be."""
    if of.engine.capabilities.embeddings and of.name != "openai":  # llama.cpp's server does either, not both
        assert isinstance(of.engine, Embedder)
        yield of.engine
        return
    if OTHER:
        pytest.skip(f"{of.name} declares no embeddings (OPENCHAT_TEST_EMBEDS=1 loads the model for them)")
    async with _embedding_pair(of) as (entry, chosen):
        engine = create_engine(entry, chosen)
        await engine.start(print)
        try:
            if not engine.capabilities.embeddings:
                pytest.skip(f"{of.name} declares no embeddings")
            assert isinstance(engine, Embedder)
            yield engine
        finally:
            await engine.close()


@asynccontextmanager
async def _embedding_pair(of: Subject) -> AsyncIterator[tuple[ModelEntry, Settings]]:
    entry = _with(of.entry, embeds=True)
    if of.name != "openai":
        yield entry, of.settings
        return
    async with llama_server(embeds=True, slots=4, context=CONTEXT) as url:
        yield entry, _changed(of.settings, openai_base_url=url)


def _with(entry: ModelEntry, **changes: Any) -> ModelEntry:
    return ModelEntry(**{name: getattr(entry, name) for name in entry.__struct_fields__} | changes)


def _changed(chosen: Settings, **changes: Any) -> Settings:
    return Settings(**{name: getattr(chosen, name) for name in chosen.__struct_fields__} | changes)


def _made(name: str, entry: ModelEntry, chosen: Settings) -> Subject:
    return Subject(name, create_engine(entry, chosen), entry, chosen)


@asynccontextmanager
async def _synthetic() -> AsyncIterator[Subject]:
    made = _made("synthetic", ModelEntry(name="synthetic", engine="synthetic", context_length=CONTEXT), settings())

    async def decode(ids: list[int]) -> str:
        return "".join(f" t{index}" for index in ids)

    made.decode = decode
    made.is_fluent = False
    yield made


@asynccontextmanager
async def _local() -> AsyncIterator[Subject]:
    built_in_model()
    made = _made("local", ModelEntry(name="smollm2-135m-instruct", engine="local"), settings())

    async def decode(ids: list[int]) -> str:
        text: str = (await made.engine._server.post("/detokenize", {"tokens": ids}))["content"]  # type: ignore[attr-defined]
        return text

    made.decode = decode
    yield made


@asynccontextmanager
async def _openai() -> AsyncIterator[Subject]:
    async with llama_server(slots=SLOTS, context=CONTEXT) as url:
        entry = ModelEntry(name="smollm2-135m-instruct", engine="openai")
        made = _made("openai", entry, _changed(settings(), openai_base_url=url))
        made.forces_calls = False
        yield made


@asynccontextmanager
async def _other(name: str) -> AsyncIterator[Subject]:
    engine, _, model = name.partition(":")
    path = _MODELS / model if model and (_MODELS / model).exists() else Path(model)
    entry = ModelEntry(
        name=path.name or engine,
        engine=engine,  # type: ignore[arg-type]
        path=str(path) if model else "",
        args=_ARGS,
        context_length=CONTEXT,
        embeds=_EMBEDS,
    )
    made = _made(name, entry, settings())
    made.decode = _decoder(path)
    made.is_fluent = bool(model) and "tiny" not in path.name
    yield made


def _decoder(folder: Path) -> Decode | None:
    if not (folder / "tokenizer.json").is_file():
        return None
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))

    async def decode(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=False))

    return decode
