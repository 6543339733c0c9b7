"""Embeddings: some inputs at a time, so that what was done is not done again by another worker."""

from __future__ import annotations

import base64
import struct
from collections.abc import AsyncGenerator, Callable

from engine.base import Embedder, Engine
from schemas.errors import CapabilityMissing, EngineError
from schemas.events import Embedding, LogEvent
from schemas.requests import EmbeddingInput

_BATCH = 64
"""Inputs for one call of the engine."""


async def vector_events(
    engine: Engine, wanted: EmbeddingInput, done: int, now_ms: Callable[[], int]
) -> AsyncGenerator[list[LogEvent], None]:
    """The events of the inputs after the first `done`, in batches. Raises CapabilityMissing, EngineError."""
    if not isinstance(engine, Embedder):
        raise CapabilityMissing
    for first in range(done, len(wanted.inputs), _BATCH):
        inputs = wanted.inputs[first : first + _BATCH]
        found = await engine.embed(
            EmbeddingInput(inputs=inputs, dimensions=wanted.dimensions, encoding=wanted.encoding)
        )
        if len(found.vectors) != len(inputs):
            raise EngineError("The engine gave another number of vectors than inputs.")
        t, last = now_ms(), len(inputs) - 1
        yield [
            Embedding(
                t=t,
                index=first + i,
                vector=_encode(vector),
                input_tokens=found.input_tokens if i == last else 0,
            )
            for i, vector in enumerate(found.vectors)
        ]


def _encode(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
