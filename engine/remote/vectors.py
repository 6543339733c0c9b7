"""The answer of `/v1/embeddings` → vectors."""

from __future__ import annotations

import base64
import binascii
import sys
from array import array

import msgspec

from engine.base import Vectors
from engine.remote.errors import nonsense
from schemas.errors import UpstreamRefused
from schemas.requests import EmbeddingInput


class _Embedding(msgspec.Struct, frozen=True):
    embedding: list[float] | str
    """Numbers, or 32-bit floats, little-endian, in base64."""
    index: int | None = None


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int | None = None


class _Answer(msgspec.Struct, frozen=True):
    data: list[_Embedding]
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Answer).decode


def vectors(data: bytes, asked: EmbeddingInput) -> Vectors:
    """One for each input, in their order. Raises msgspec.DecodeError, UpstreamFault; UpstreamRefused if it does not
    do what was asked."""
    answer = _decode(data)
    found = sorted(
        enumerate(answer.data), key=lambda pair: pair[0] if pair[1].index is None else pair[1].index
    )  # not every server keeps the order
    if len(found) != len(asked.inputs):
        raise nonsense(f"The upstream sent {len(found)} embeddings for {len(asked.inputs)} inputs.")
    made = [_floats(one.embedding) for _, one in found]
    if asked.dimensions is not None and any(len(vector) != asked.dimensions for vector in made):
        raise UpstreamRefused("The upstream does not know `dimensions`: it sent vectors of another length.")
    tokens = answer.usage.prompt_tokens if answer.usage else None
    return Vectors(vectors=made, input_tokens=tokens or 0)


def _floats(embedding: list[float] | str) -> list[float]:
    if isinstance(embedding, list):
        return embedding
    numbers = array("f")
    try:
        numbers.frombytes(base64.b64decode(embedding, validate=True))
    except (binascii.Error, ValueError) as exc:
        raise nonsense("The upstream sent an embedding that is no base64 of 32-bit floats.") from exc
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()
