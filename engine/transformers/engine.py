"""The engine `transformers`: any model folder of Hugging Face's library, on the CPU or CUDA.

Generations share a continuous batch where the model allows that. What the batch can not
do for one request alone (a seed, penalties, logprobs) runs beside it in a thread of its
own, and so does everything where the model can not be batched.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import time
from collections import deque
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base import Delta, Generation, Progress, Vectors
from engine.detokenize import Detokenizer, Piece
from engine.needs import refuse_what_is_missing
from engine.room import room_for
from engine.transformers.args import transformers_args
from schemas.capabilities import Capabilities
from schemas.errors import CapabilityMissing, EngineDead, EngineError, SettingsError
from schemas.logprobs import TokenLogprob
from schemas.requests import EmbeddingInput

if TYPE_CHECKING:
    from engine.transformers.batch import Batch
    from engine.transformers.embed import Embedding
    from engine.transformers.model import LoadedModel
    from engine.transformers.prompts import Prompts
    from engine.transformers.sampling import Sampling
    from engine.transformers.streams import Step, Streams

DEFAULT_SLOTS = 8
_TRIAL_LIMIT_S = 120.0
_STOP_LIMIT_S = 15.0


class TransformersEngine:
    """One model folder; `slots` generations at once."""

    def __init__(
        self, *, path: str, slots: int = 0, context_length: int = 0, args: dict[str, Any], embeds: bool = False
    ) -> None:
        """`context_length` 0: what the model can. Raises SettingsError."""
        self._args = transformers_args(args)
        missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
        if missing:
            raise SettingsError(f"engine transformers: {missing[0]} is not installed; run `make install-transformers`")
        self._path = path
        self._wanted_context = context_length
        self._embeds = embeds
        self.context_length = context_length
        self.capacity = slots or DEFAULT_SLOTS
        self.capabilities = (
            Capabilities(generates=False, embeddings=True)
            if embeds
            else Capabilities(continues=True, completions=True, logprobs=True, logit_bias=True)
        )
        self._serving: _Serving | None = None
        self._embedding: Embedding | None = None

    async def start(self, progress: Progress) -> None:
        folder = Path(self._path)
        if not self._path or not (folder / "config.json").is_file():
            raise SettingsError(
                f"the model {self._path!r} is no model folder: it has no config.json; give one with --model"
            )
        progress(f"loading {folder.name} with transformers")
        began = time.monotonic()
        loaded = await asyncio.to_thread(self._load, folder)
        self.context_length = loaded.context_length(self._wanted_context)
        if self._embeds:
            await asyncio.to_thread(self._make_embedding, loaded, folder)
            how = "embeddings"
        else:
            self._serving = serving = _Serving(loaded, self._template(), slots=self.capacity)
            how = await self._batched(serving, loaded, progress)
        progress(
            f"loaded in {time.monotonic() - began:.1f} s: {loaded.dtype} on {loaded.device}, {how}, "
            f"{self.capacity} slots, context {self.context_length} tokens"
        )

    def _load(self, folder: Path) -> LoadedModel:
        """The libraries are imported here first, which takes seconds."""
        try:
            from engine.transformers.model import LoadedModel
        except ImportError as exc:
            raise SettingsError(f"engine transformers: {exc}; run `make install-transformers`") from exc
        return LoadedModel(folder, self._args, embeds=self._embeds)

    def _make_embedding(self, loaded: LoadedModel, folder: Path) -> None:
        from engine.transformers.embed import Embedding

        self._embedding = Embedding(loaded.model, loaded.tokenizer, folder, self.context_length)

    def _template(self) -> str | None:
        path = self._args.chat_template
        try:
            return Path(path).read_text(encoding="utf-8") if path else None
        except (OSError, UnicodeDecodeError) as exc:
            raise SettingsError(f"chat_template {path}: {exc}") from exc

    async def _batched(self, serving: _Serving, loaded: LoadedModel, progress: Progress) -> str:
        """Try continuous batching where it is wanted; says what is used."""
        from engine.transformers.batch import why_not

        if self._args.batching == "streamers":
            return "streamers"
        reason = why_not(loaded.model)
        if not reason:
            try:
                serving.batch = batch = await self._start_batch(loaded, serving.eos)
            except EngineError as exc:
                reason = exc.message
            else:
                self._fit_cache(batch, progress)
                return "continuous batching"
        if self._args.batching == "continuous":
            await self.close()
            raise SettingsError(f"the model {self._path} can not be batched continuously: {reason}")
        progress(f"no continuous batching: {reason}")
        return "streamers"

    async def _start_batch(self, loaded: LoadedModel, eos: list[int]) -> Batch:
        """Started, and tried with a generation. Raises EngineError where it does not work."""
        from engine.transformers.batch import Batch
        from engine.transformers.sampling import Sampling
        from engine.transformers.streams import mapped_errors

        def started() -> Batch:
            with mapped_errors():
                batch = Batch(
                    loaded.model, self._args, slots=self.capacity, context_length=self.context_length, eos=eos
                )
                batch.start()
            return batch

        starting = asyncio.ensure_future(asyncio.to_thread(started))
        try:
            batch = await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(_close_started)
            raise
        try:
            async with asyncio.timeout(_TRIAL_LIMIT_S):
                async for _ in batch.tokens([0, 1, 2], 2, Sampling(temperature=0.0)):
                    pass
        except (EngineError, TimeoutError) as exc:
            await asyncio.to_thread(batch.close)
            raise EngineError(str(exc) or "its trial took too long") from exc
        except asyncio.CancelledError:
            batch.close()
            raise
        return batch

    def _fit_cache(self, batch: Batch, progress: Progress) -> None:
        """One generation alone must fit the cache: the library ends its thread where it does not."""
        if batch.cache_tokens >= self.context_length:
            return
        progress(f"the cache has {batch.cache_tokens} tokens: the context is cut to that")
        self.context_length = batch.cache_tokens

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        refuse_what_is_missing(self.capabilities, generation.request)
        if self._serving is None:
            raise EngineDead("the transformers engine is not running")
        serving = self._serving
        serving.prompts.check_bias(generation.request.logit_bias)
        prompt = await asyncio.to_thread(serving.prompts.ids_of, generation.request)
        left = room_for(
            prompt=len(prompt),
            prefix=len(generation.prefix_tokens),
            context=self.context_length,
            limit=generation.request.max_output_tokens,
            least=generation.least_room,
        )
        if not left:
            yield Delta(finish_reason="length", input_tokens=len(prompt))
            return
        async with contextlib.aclosing(serving.deltas(generation, prompt, left)) as deltas:
            async for delta in deltas:
                yield delta

    async def embed(self, embedding: EmbeddingInput) -> Vectors:
        """The vectors of all inputs."""
        from engine.transformers.streams import mapped_errors

        if not self._embeds:
            raise CapabilityMissing("The engine transformers has no embeddings for this model: it is loaded for text.")
        if self._embedding is None:
            raise EngineDead("the transformers engine is not running")
        with mapped_errors():
            return await asyncio.to_thread(self._embedding.vectors, embedding)

    async def check(self) -> None:
        if self._embeds and self._embedding is not None:
            return
        serving = self._serving
        if serving is None:
            raise EngineDead("the transformers engine is not running")
        if serving.batch is not None:
            serving.batch.check()

    async def close(self) -> None:
        self._embedding = None
        serving, self._serving = self._serving, None
        if serving is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_LIMIT_S):
                await asyncio.to_thread(serving.close)


class _Serving:
    """A loaded model and the two ways to generate with it."""

    def __init__(self, loaded: LoadedModel, template: str | None, *, slots: int) -> None:
        from engine.transformers.prompts import Prompts
        from engine.transformers.sampling import Naming
        from engine.transformers.streams import Streams

        self.eos = loaded.eos_ids()
        self.prompts: Prompts = Prompts(loaded.tokenizer, template)
        self.batch: Batch | None = None
        self._defaults = loaded.model.generation_config
        naming = Naming(loaded.tokenizer, self.prompts.decode)
        self._streams: Streams = Streams(loaded.model, naming, slots=slots, eos=self.eos)

    async def deltas(self, generation: Generation, prompt: list[int], left: int) -> AsyncGenerator[Delta, None]:
        """At most `left` new tokens."""
        from engine.transformers.sampling import Sampling

        request = generation.request
        prefix = list(generation.prefix_tokens)
        text = Detokenizer(
            self.prompts.decode,
            context=prefix if request.prompt is None else [*prompt, *prefix],
            before=generation.prefix_text,
            stops=request.stop,
        )
        logprobs: deque[TokenLogprob] = deque()
        ended = False
        steps = self._steps([*prompt, *prefix], len(prompt), left, Sampling.of(request, self._defaults))
        async with contextlib.aclosing(steps):
            async for step in steps:
                ended = step.token in self.eos
                if ended:
                    break
                if step.logprob is not None:
                    logprobs.append(step.logprob)
                piece = text.push([step.token])
                if piece.text:
                    yield _delta(piece, logprobs)
                if text.stopped:
                    break
        yield _delta(
            text.finish(),
            logprobs,
            finish_reason="stop" if ended or text.stopped else "length",
            input_tokens=len(prompt),
            output_tokens=text.count + ended,
        )

    async def _steps(
        self, ids: list[int], prompt_length: int, left: int, sampling: Sampling
    ) -> AsyncGenerator[Step, None]:
        from engine.transformers.streams import Step

        if self.batch is None or not sampling.fits_batch:
            async with contextlib.aclosing(self._streams.tokens(ids, prompt_length, left, sampling)) as steps:
                async for step in steps:
                    yield step
            return
        async with contextlib.aclosing(self.batch.tokens(ids, left, sampling)) as pieces:
            async for piece in pieces:
                for token in piece:
                    yield Step(token)

    def close(self) -> None:
        """Blocks until its threads have ended."""
        if self.batch is not None:
            self.batch.close()
        self._streams.close()


def _close_started(starting: asyncio.Future[Batch]) -> None:
    """Nobody waits for it any more."""
    if not starting.cancelled() and starting.exception() is None:
        starting.result().close()


def _delta(piece: Piece, logprobs: deque[TokenLogprob], **end: Any) -> Delta:
    of_piece = tuple(logprobs.popleft() for _ in piece.tokens if logprobs)
    return Delta(text=piece.text, tokens=piece.tokens, logprobs=of_piece, **end)
