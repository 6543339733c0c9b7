"""What an engine promises that is loaded to embed."""

from __future__ import annotations

import math

import pytest

from engine.base import Embedder
from schemas.errors import RequestError
from schemas.requests import EmbeddingInput
from tests.engines.subjects import CONTEXT

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_vectors_are_of_one_length_normalised_and_the_same_again(embedder: Embedder) -> None:
    inputs: list[str | list[int]] = ["a cat on a mat", "a dog in the fog", "a cat on a mat", "猫 🙂"]
    vectors = await embedder.embed(EmbeddingInput(inputs=inputs))
    again = await embedder.embed(EmbeddingInput(inputs=inputs))
    assert len(vectors.vectors) == 4
    assert vectors.input_tokens > 4
    assert len({len(vector) for vector in vectors.vectors}) == 1
    assert all(math.isclose(math.hypot(*vector), 1.0, abs_tol=1e-3) for vector in vectors.vectors)
    cat, dog, same, _ = vectors.vectors
    assert cat == pytest.approx(same, abs=1e-3)
    assert cat != pytest.approx(dog, abs=1e-3)
    for before, after in zip(vectors.vectors, again.vectors, strict=True):
        assert before == pytest.approx(after, abs=1e-3)


async def test_an_input_that_does_not_fit_is_the_callers_fault(embedder: Embedder) -> None:
    with pytest.raises(RequestError):
        await embedder.embed(EmbeddingInput(inputs=["fine", "word " * (CONTEXT + 100)]))
    assert len((await embedder.embed(EmbeddingInput(inputs=["fine"]))).vectors) == 1


async def test_dimensions_are_kept_or_refused(embedder: Embedder) -> None:
    wanted = EmbeddingInput(inputs=["a"], dimensions=8)
    try:
        found = await embedder.embed(wanted)
    except RequestError as exc:
        message = exc.message
    else:
        assert len(found.vectors[0]) == 8
        assert math.isclose(math.hypot(*found.vectors[0]), 1.0, abs_tol=1e-3)
        return
    assert "dimensions" in message
