"""Engines `openai` for tests, and what they are asked."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from engine.base import Delta, Generation, ToolPiece
from engine.remote.engine import RemoteEngine, remote_engine
from schemas.ids import new_response_id
from schemas.models import ModelEntry, UpstreamEntry
from schemas.requests import GenerationRequest, Message
from schemas.settings import Settings
from tests.upstream import Upstream, says

KEY = "sk-of-the-operator"
Make = Callable[..., RemoteEngine]
"""`make(url=…, key=…, slots=…, timeout_s=…, environ=…, seed=…, **fields of the model entry)`"""


@asynccontextmanager
async def making(default_url: str) -> AsyncIterator[Make]:
    """Makes engines, and closes them at the end."""
    made: list[RemoteEngine] = []

    def make(
        *,
        url: str = default_url,
        key: str = KEY,
        slots: int = 0,
        timeout_s: int = 5,
        environ: Mapping[str, str] | None = None,
        seed: int = 0,
        **entry: Any,
    ) -> RemoteEngine:
        settings = Settings(openai_base_url=url, openai_api_key=key, openai_timeout_s=timeout_s, slots=slots)
        model = ModelEntry(name="m-1", engine="openai", **entry)
        made.append(remote_engine(model, settings, environ or {}, random.Random(seed)))
        return made[-1]

    yield make
    for engine in made:
        await engine.close()


def over(*urls: str, **fields: Any) -> list[UpstreamEntry]:
    """Upstreams with the same fields."""
    return [UpstreamEntry(url=url, **fields) for url in urls]


def generation(*, prefix: tuple[str, ...] = (), **parameters: Any) -> Generation:
    """`prefix`: the pieces of text that are in the log already."""
    request = GenerationRequest(**{"model": "ours", "messages": [Message("user", "hi")]} | parameters)
    return Generation(id=new_response_id(), request=request, prefix_text="".join(prefix), prefix_pieces=len(prefix))


async def collect(engine: RemoteEngine, **parameters: Any) -> list[Delta]:
    """All deltas but the signs of life."""
    deltas = [delta async for delta in engine.generate(generation(**parameters))]
    return [delta for delta in deltas if delta.has_piece or delta.finish_reason]


async def text(engine: RemoteEngine, **parameters: Any) -> str:
    return "".join(delta.text for delta in await collect(engine, **parameters))


def pieces(deltas: list[Delta]) -> list[ToolPiece]:
    return [delta.tool for delta in deltas if delta.tool is not None]


async def sent(engine: RemoteEngine, remote: Upstream, **parameters: Any) -> dict[str, Any]:
    """The body of a request without what every body has."""
    remote.scripts = [says("a")]
    await collect(engine, **parameters)
    ours = {"model", "stream", "stream_options"}
    return {name: value for name, value in remote.calls[-1].body.items() if name not in ours}
