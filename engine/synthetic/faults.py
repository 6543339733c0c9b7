"""How a synthetic response behaves: its pace, and the faults that are put into it.

Defaults come from the settings; a request changes them for itself by its metadata, in whose keys `_` is
written `-`, after `synthetic-`. A fault happens once: an attempt that goes on from behind it is spared.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from schemas.errors import EngineDead, EngineError, InvalidRequest
from schemas.ids import ResponseId

PREFIX = "synthetic-"
_STALL_S = 86_400.0
"""A stall is longer than any patience, and still has an end."""
_Milliseconds = Annotated[float, Meta(ge=0, le=3_600_000)]
_Tokens = Annotated[int, Meta(ge=0, le=1_000_000)]


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """Of one response. Counts are tokens of the response from its beginning; 0: never."""

    tokens_per_second: Annotated[float, Meta(gt=0, le=1_000_000)] = 50.0
    ttft_ms: _Milliseconds = 0.0
    jitter_ms: _Milliseconds = 0.0
    """Each token comes up to so much later, by chance that is the same for the same response id."""
    fail_after: _Tokens = 0
    fail_with: Literal["error", "dead"] = "error"
    """`error`: this request fails; `dead`: the engine says that it is gone."""
    stall_after: _Tokens = 0
    """Then nothing comes any more, and nothing fails."""
    reasoning: Annotated[int, Meta(ge=0, le=100_000)] = 0
    """Tokens of reasoning in front."""
    tools: Annotated[int, Meta(ge=0, le=16)] = 0
    """Calls that are made where the request has tools, though it need not."""

    @property
    def has_faults(self) -> bool:
        return bool(self.jitter_ms or self.fail_after or self.stall_after)

    def changed_by(self, metadata: Mapping[str, str]) -> Behaviour:
        """Raises InvalidRequest, naming the key whose value is wrong, or that does not exist."""
        changes = {key: text for key, text in metadata.items() if key.startswith(PREFIX)}
        if not changes:
            return self
        values = {_field(key): _value(key, text) for key, text in changes.items()}
        return msgspec.structs.replace(self, **values)


_TYPES = {field.encode_name: field.type for field in msgspec.structs.fields(Behaviour)}


def _field(key: str) -> str:
    name = key[len(PREFIX) :].replace("-", "_")
    if name not in _TYPES or "_" in key:
        known = ", ".join(PREFIX + field.replace("_", "-") for field in _TYPES)
        raise InvalidRequest(f"metadata: the synthetic engine has no {key!r}; it has {known}.", param=f"metadata.{key}")
    return name


def _value(key: str, text: str) -> Any:
    try:
        return msgspec.convert(text, _TYPES[_field(key)], strict=False)
    except msgspec.ValidationError as exc:
        raise InvalidRequest(f"metadata.{key}: {exc}", param=f"metadata.{key}") from exc


class Pace:
    """When the next token is due, and what happens instead of it."""

    def __init__(self, behaviour: Behaviour, response: ResponseId, first: int) -> None:
        self._behaviour = behaviour
        self._first = first
        self._chance = random.Random(f"{response} {first}")
        self._due = asyncio.get_running_loop().time() + behaviour.ttft_ms / 1000

    async def wait(self, index: int) -> None:
        """Until token `index` is due. Raises EngineError or EngineDead where it is to fail before it."""
        behaviour = self._behaviour
        if self._first < behaviour.stall_after <= index:
            await asyncio.sleep(_STALL_S)
        if self._first < behaviour.fail_after <= index:
            raise self._failure(behaviour)
        late = self._chance.uniform(0, behaviour.jitter_ms) / 1000 if behaviour.jitter_ms else 0.0
        await asyncio.sleep(max(0.0, self._due + late - asyncio.get_running_loop().time()))
        self._due += 1 / behaviour.tokens_per_second

    @staticmethod
    def _failure(behaviour: Behaviour) -> EngineError:
        kind = EngineDead if behaviour.fail_with == "dead" else EngineError
        return kind(f"The synthetic engine fails after {behaviour.fail_after} tokens, as it was told.")
