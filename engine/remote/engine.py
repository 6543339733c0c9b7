"""The engine `openai`: one model served by any number of remote APIs, its upstreams."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence

import msgspec

from engine.base import Delta, Generation, Progress, Vectors
from engine.needs import refuse_what_is_missing
from engine.remote.api import SIGN_OF_LIFE, RemoteApi
from engine.remote.bodies import tokens_left
from engine.remote.errors import UpstreamFault
from engine.remote.upstreams import Tries, Upstream
from schemas.capabilities import Capabilities
from schemas.errors import SettingsError, WorkerLost
from schemas.models import ModelEntry, UpstreamEntry
from schemas.requests import EmbeddingInput, GenerationRequest
from schemas.settings import Settings

DEFAULT_SLOTS = 64
_KEY_NAME = "OPENAI_API_KEY"


class RemoteEngine:
    """One model of one or more remote APIs."""

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        *,
        capacity: int,
        context_length: int = 0,
        adapters: Mapping[str, str] | None = None,
        capabilities: Capabilities,
        rng: random.Random,
    ) -> None:
        """`adapters`: the name by which clients ask for one → what the APIs call it."""
        self.capabilities = capabilities
        self.capacity = capacity
        self.context_length = context_length
        self._upstreams = upstreams
        self._adapters = adapters or {}
        self._rng = rng

    async def start(self, progress: Progress) -> None:
        """Nothing to load. An API that is away is no reason not to start: each request tries anew."""
        for one in self._upstreams:
            share = f", weight {one.weight:g}" if len(self._upstreams) > 1 else ""
            progress(f"requests go to {one.name}, model {one.api.model}{share}, {self.capacity} at once in all")

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        """As the protocol says. Raises UpstreamRefused, UpstreamUnavailable before the first piece,
        UpstreamBrokeOff after it, EngineError."""
        request = generation.request
        refuse_what_is_missing(self.capabilities, request)
        if generation.prefix_text and tokens_left(generation) == 0:
            yield Delta(finish_reason="length")
            return
        tries = Tries(self._able(generation), self._rng)
        while True:
            attempt = await tries.next()
            try:
                with attempt:
                    model = self._adapters.get(request.adapter, request.adapter) or attempt.api.model
                    async with contextlib.aclosing(attempt.api.generate(generation, model)) as deltas:
                        async for delta in deltas:
                            if not attempt.has_begun and (delta.has_piece or delta.finish_reason):
                                attempt.heard()
                            yield delta
                return
            except UpstreamFault as fault:
                tries.failed(attempt, fault)
            yield SIGN_OF_LIFE  # this may take long: nobody is to think that the engine is stuck

    async def embed(self, embedding: EmbeddingInput) -> Vectors:
        """As the protocol says. Raises as `generate`."""
        refuse_what_is_missing(self.capabilities, GenerationRequest(model="", embed=embedding))
        tries = Tries(self._upstreams, self._rng)
        while True:
            attempt = await tries.next()
            try:
                with attempt:
                    return await attempt.api.embed(embedding)
            except UpstreamFault as fault:
                tries.failed(attempt, fault)

    async def check(self) -> None:
        """A remote API that is away comes back by itself: nothing to restart here."""

    async def close(self) -> None:
        for one in self._upstreams:
            await one.api.close()

    def _able(self, generation: Generation) -> Sequence[Upstream]:
        if not generation.prefix_text:
            return self._upstreams
        able = [one for one in self._upstreams if one.continues]
        if not able:
            raise WorkerLost
        return able


def remote_engine(
    entry: ModelEntry, settings: Settings, environ: Mapping[str, str], rng: random.Random | None = None
) -> RemoteEngine:
    """The engine of a model entry; `environ` has the keys. Raises SettingsError."""
    rng = rng or random.Random()
    upstreams = _upstreams(entry, settings, environ, rng)
    return RemoteEngine(
        upstreams,
        capacity=settings.slots or DEFAULT_SLOTS,
        context_length=entry.context_length,
        adapters=entry.adapters,
        capabilities=_capabilities(entry, continues=any(one.continues for one in upstreams)),
        rng=rng,
    )


def _capabilities(entry: ModelEntry, *, continues: bool) -> Capabilities:
    """All that such an API may have: what this one has not, it refuses itself, or the entry says."""
    if entry.embeds:
        return Capabilities(generates=False, embeddings=True)
    has = Capabilities(
        continues_text=continues,
        completions=True,
        tools=True,
        json_schema=True,
        logprobs=True,
        images=True,
        embeddings=True,
        logit_bias=True,
        reasoning_effort=True,
        verbosity=True,
    )
    return msgspec.structs.replace(has, **dict.fromkeys(entry.lacks, False))


def _upstreams(entry: ModelEntry, settings: Settings, environ: Mapping[str, str], rng: random.Random) -> list[Upstream]:
    found = []
    counts = Counter[str]()
    for one in entry.upstreams or [UpstreamEntry(url=settings.openai_base_url)]:
        key_name, key = _key(one, entry, environ) if entry.upstreams else (_KEY_NAME, settings.openai_api_key)
        api = RemoteApi(
            url=one.url,
            key=key,
            key_name=key_name,
            model=one.model or entry.upstream_model or entry.name,
            timeout_s=settings.openai_timeout_s,
            args=entry.args,
        )
        counts[api.name] += 1
        name = api.name if counts[api.name] == 1 else f"{api.name}#{counts[api.name]}"
        found.append(Upstream(api, name=name, weight=one.weight, continues=one.continues, rng=rng))
    return found


def _key(one: UpstreamEntry, entry: ModelEntry, environ: Mapping[str, str]) -> tuple[str, str]:
    """The name of its variable, and the key."""
    if not one.key:
        return "the `key` of this upstream in the models file", ""
    key = environ.get(one.key, "").strip()
    if not key:
        raise SettingsError(f"model {entry.name!r}: set {one.key}, the variable with the key of one of its upstreams")
    return one.key, key
