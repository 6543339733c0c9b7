"""Whether llama.cpp can hold an output to a JSON schema.

A schema that its grammar library refuses is not an error there: the output is then simply free. So each new
schema is tried: with a bias towards a token that no JSON begins with, one token shows whether the grammar holds.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.local.server import LlamaServer
from schemas.errors import InvalidRequest
from schemas.requests import OutputFormat

_NO_JSON = "?"
_ANY_OBJECT: dict[str, Any] = {"type": "object"}
_REMEMBERED = 256


class Schemas:
    """The schemas that were tried."""

    def __init__(self, server: LlamaServer) -> None:
        self._server = server
        self._good: dict[bytes, None] = {}

    async def of(self, shape: OutputFormat) -> dict[str, Any]:
        """What to ask llama.cpp for; raises InvalidRequest where it could not be kept."""
        if shape.schema is None:
            return _ANY_OBJECT
        key = msgspec.json.encode(shape.schema)
        if key not in self._good:
            await self._try(shape.schema)
            if len(self._good) >= _REMEMBERED:
                del self._good[next(iter(self._good))]
            self._good[key] = None
        return shape.schema

    async def _try(self, schema: dict[str, Any]) -> None:
        body = {
            "prompt": "JSON:",
            "n_predict": 1,
            "temperature": 0.0,
            "json_schema": schema,
            "logit_bias": [[_NO_JSON, 1e6]],
        }
        answer = await self._server.post("/completion", body)
        if answer["content"].startswith(_NO_JSON):
            raise InvalidRequest("The output can not be held to this JSON schema.", param="schema")
