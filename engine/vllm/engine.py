"""The engine `vllm`: vLLM in this process (AsyncLLM), on GPUs and, by its CPU build, without one.

The model runs in a process of its own, vLLM's engine core, and batches all generations. What
a request means is taken from vLLM's own server code (engine/vllm/prompt.py); ids come
here as they are sampled, and text, stop strings and pieces are made here (engine/vllm/pieces.py).
vLLM is imported when the engine starts: most installs lack it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from engine.base import Delta, FinishReason, Generation, Progress, Vectors
from engine.detokenize import Decode
from engine.needs import refuse_what_is_missing
from engine.room import room_for
from engine.vllm import library
from engine.vllm.logprobs import TokenTexts, token_logprobs
from engine.vllm.pieces import Codec, End, ParsedPieces, TextPieces
from schemas.capabilities import Capabilities
from schemas.errors import (
    ContextTooLong,
    EngineDead,
    EngineError,
    InvalidRequest,
    ModelNotFound,
    SettingsError,
)
from schemas.requests import EmbeddingInput

if TYPE_CHECKING:
    from engine.vllm.prompt import Prompt, PromptRenderer

_HEARTBEAT_S = 15.0
_STOP_LIMIT_S = 30.0
_CORE_STOP_S = 5.0
_MAX_MESSAGE = 500
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "repetition": "stop"}


class VllmEngine:
    """One model in vLLM; `slots` generations share its batch."""

    def __init__(
        self,
        *,
        path: str,
        slots: int = 0,
        context_length: int = 0,
        args: dict[str, Any] | None = None,
        adapters: dict[str, str] | None = None,
        embeds: bool = False,
    ) -> None:
        """`args`: fields of vLLM's AsyncEngineArgs, and those of `vllm_library.OUR_ARGS`. Raises SettingsError."""
        library.check_installed()
        self._options = _options(path, slots, context_length, args or {}, adapters or {}, embeds)
        library.check_path(path)
        self.capabilities = Capabilities(generates=not embeds, embeddings=embeds)
        self.capacity = slots or library.CPU_SLOTS
        self.context_length = context_length
        self._llm: Any = None
        self._renderer: PromptRenderer | None = None
        self._tokenizer: Any = None
        self._adapters: dict[str, Any] = {}

    async def start(self, progress: Progress) -> None:
        """vLLM has limits of its own for a start (VLLM_ENGINE_READY_TIMEOUT_S); the event loop stays free."""
        began = time.monotonic()
        progress("importing vLLM")
        version = await asyncio.to_thread(library.load)
        await asyncio.to_thread(importlib.import_module, "engine.vllm.prompt")  # seconds as well
        progress(f"vLLM {version} loads {self._options.path}")
        self._llm = await _patiently(lambda: library.build(self._options), progress)
        try:
            await self._prepare()
        except (ValueError, TypeError, OSError) as exc:
            await self.close()
            raise SettingsError(f"engine vllm: {str(exc)[:_MAX_MESSAGE]}") from exc
        except BaseException:
            await self.close()
            raise
        progress(f"loaded in {time.monotonic() - began:.1f} s: {self._loaded()}")

    async def _prepare(self) -> None:
        from engine.vllm.prompt import PromptRenderer

        config = self._llm.model_config
        self.capacity = int(self._llm.vllm_config.scheduler_config.max_num_seqs)
        self.context_length = int(config.max_model_len)
        with _map_errors():
            await self._llm.get_supported_tasks()  # the first message: from now on a dead core is noticed
        self._tokenizer = self._llm.get_tokenizer()
        self._texts = TokenTexts(self._tokenizer, self._decoder(skip_special=False))
        self._silent_ids = frozenset(self._tokenizer.all_special_ids)
        self._adapters = library.lora_requests(self._options.adapters)
        with _map_errors():
            self._renderer = PromptRenderer(self._llm, self._options)
        if not self._options.embeds:
            self.capabilities = Capabilities(
                continues=True,
                completions=True,
                tools=bool(self._options.tool_parser),
                json_schema=True,
                logprobs=True,
                images=bool(config.is_multimodal_model),
                logit_bias=True,
                reasoning_effort=self._renderer.takes_reasoning_effort,
            )

    def _loaded(self) -> str:
        cache = self._llm.vllm_config.cache_config
        dtype = str(self._llm.model_config.dtype).removeprefix("torch.")
        blocks = cache.num_gpu_blocks or 0
        room = f", KV cache of {blocks * cache.block_size} tokens ({blocks} blocks)" if blocks else ""
        return f"{dtype}, {self.capacity} slots, context {self.context_length}{room}"

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        """As the protocol says. A prefix counts as prompt for vLLM's presence and frequency penalties."""
        request = generation.request
        refuse_what_is_missing(self.capabilities, request)
        adapter = self._adapter(request.adapter)
        with _map_errors():
            prompt = await self._serving.render(request)
            left = self._room(prompt, generation)
            if not left:
                yield Delta(finish_reason="length", input_tokens=len(prompt.ids))
                return
            params = self._serving.params(prompt, left)
            pieces = self._pieces(generation, prompt, params.skip_special_tokens)
            outputs = self._running.generate(
                prompt.followed_by(generation.prefix_tokens),
                params,
                generation.id,
                lora_request=adapter,
                **prompt.options,
            )
            last = Delta(input_tokens=len(prompt.ids))
            async with contextlib.aclosing(outputs):
                async for output in outputs:
                    cached = min(len(prompt.ids), output.num_cached_tokens or 0)
                    last = replace(last, cached_tokens=max(last.cached_tokens, cached))
                    deltas, finish = self._step(pieces, output.outputs[0], request.top_logprobs)
                    if finish is not None:
                        break
                    for delta in deltas:
                        yield delta
                else:
                    raise EngineError("vLLM ended its stream too early")
            for delta in deltas[:-1]:
                yield delta
            yield _last_delta(deltas, last, finish, pieces, output.outputs[0])

    def _step(self, pieces: TextPieces | ParsedPieces, step: Any, top: int) -> tuple[list[Delta], FinishReason | None]:
        """The deltas of what was sampled now, and how it ended where it has."""
        tokens = list(step.token_ids)
        finish = None if step.finish_reason is None else _finish_reason(step.finish_reason)
        end = None
        if step.finish_reason is not None:
            ended_by_token = step.finish_reason == "stop" and tokens
            end = End(tokens.pop() if ended_by_token else None)
        logprobs = token_logprobs(self._texts, tokens, step.logprobs, top) if step.logprobs else []
        deltas = pieces.push(tokens, logprobs, end=end)
        return deltas, "stop" if pieces.stopped else finish

    def _pieces(self, generation: Generation, prompt: Prompt, skip_special: bool) -> TextPieces | ParsedPieces:
        codec = Codec(self._decoder(skip_special), self._encode)
        prefix = generation.prefix_tokens
        stops = list(prompt.chat.stop or [])
        if prompt.parser is None:
            return TextPieces(codec, prompt=prompt.ids, prefix=prefix, before=generation.prefix_text, stops=stops)
        return ParsedPieces(
            codec,
            parser=prompt.parser,
            chat=prompt.chat,
            prompt=prompt.ids,
            prefix=prefix,
            stops=stops,
            is_silent=self._silent_ids.__contains__ if skip_special else lambda _: False,
        )

    def _room(self, prompt: Prompt, generation: Generation) -> int:
        """Tokens that may still be generated; raises ContextTooLong."""
        return room_for(
            prompt=len(prompt.ids),
            prefix=len(generation.prefix_tokens),
            context=self.context_length,
            limit=generation.request.max_output_tokens or self._serving.default_limit,
            least=generation.least_room,
        )

    async def embed(self, embedding: EmbeddingInput) -> Vectors:
        with _map_errors():
            inputs = [await self._serving.bare(text) for text in embedding.inputs]
            for found in inputs:
                self._check_length(len(found["prompt_token_ids"]))
            tasks: list[asyncio.Task[list[float]]] = []
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._vector(found, embedding.dimensions)) for found in inputs]
            except ExceptionGroup as exc:
                raise exc.exceptions[0] from exc
        count = sum(len(found["prompt_token_ids"]) for found in inputs)
        return Vectors([task.result() for task in tasks], count)

    async def _vector(self, found: dict[str, Any], dimensions: int | None) -> list[float]:
        from vllm import PoolingParams

        params = PoolingParams(task="embed", dimensions=dimensions)
        encoding = self._running.encode(found, params, f"embed_{secrets.token_hex(16)}")
        async with contextlib.aclosing(encoding) as outputs:
            async for output in outputs:
                if output.finished:
                    vector: list[float] = output.outputs.data.tolist()
                    return vector
        raise EngineError("vLLM gave no embedding")

    def _check_length(self, count: int) -> None:
        if count > self.context_length:
            raise ContextTooLong(
                f"The input has {count} tokens; it does not fit the context of {self.context_length} tokens."
            )

    def _adapter(self, name: str) -> Any:
        if name and name not in self._adapters:
            known = ", ".join(self._adapters) or "none"
            raise ModelNotFound(f"The adapter {name[:200]!r} does not exist; there are: {known}.", param="model")
        return self._adapters.get(name)

    def _decoder(self, skip_special: bool) -> Decode:
        from vllm.v1.engine.detokenizer import uses_fast_detokenizer

        # the Rust tokenizer itself: transformers' wrapper costs several times as much, and may clean up spaces
        decode = self._tokenizer._tokenizer.decode if uses_fast_detokenizer(self._tokenizer) else self._tokenizer.decode
        return lambda ids: str(decode(ids, skip_special_tokens=skip_special))

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    @property
    def _running(self) -> Any:
        if self._llm is None:
            raise EngineDead("vLLM is not running")
        return self._llm

    @property
    def _serving(self) -> PromptRenderer:
        if self._renderer is None:
            raise EngineDead("vLLM is not running")
        return self._renderer

    async def check(self) -> None:
        if self._running.errored:
            raise EngineDead("vLLM's engine core died")

    async def close(self) -> None:
        llm, self._llm, self._renderer = self._llm, None, None
        if llm is None:
            return
        _end_outputs(llm)
        with contextlib.suppress(TimeoutError):  # its process ends with ours at the latest
            async with asyncio.timeout(_STOP_LIMIT_S):
                await asyncio.to_thread(llm.shutdown, _CORE_STOP_S)
                _free_sockets(llm)


def _options(
    path: str, slots: int, context_length: int, args: dict[str, Any], adapters: dict[str, str], embeds: bool
) -> library.Options:
    ours = {name: value for name, value in args.items() if name in library.OUR_ARGS}
    fixed = {
        "path": path,
        "slots": slots,
        "context_length": context_length,
        "adapters": adapters,
        "embeds": embeds,
        "args": {name: value for name, value in args.items() if name not in library.OUR_ARGS},
    }
    try:
        return msgspec.convert(fixed | ours, library.Options)
    except msgspec.ValidationError as exc:
        raise SettingsError(f"engine vllm: {exc}") from exc


async def _patiently(build: Callable[[], Any], progress: Progress) -> Any:
    """The result of blocking work in a thread, with a line now and then; when cancelled, what it makes is shut down."""
    began = time.monotonic()
    task = asyncio.ensure_future(asyncio.to_thread(build))
    try:
        while not (await asyncio.wait({task}, timeout=_HEARTBEAT_S))[0]:
            progress(f"loading for {time.monotonic() - began:.0f} s")
    except asyncio.CancelledError:
        task.add_done_callback(_shut_down_late)
        raise
    return task.result()


def _shut_down_late(task: asyncio.Future[Any]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().shutdown(_CORE_STOP_S)


def _end_outputs(llm: Any) -> None:
    """Before a shutdown: else vLLM logs its own end as a failure. Who waits for output is told."""
    from vllm.v1.engine.exceptions import EngineDeadError

    if llm.output_handler is not None:
        llm.output_handler.cancel()
    llm.output_processor.propagate_error(EngineDeadError())


def _free_sockets(llm: Any) -> None:
    """vLLM leaves its ZeroMQ context to the garbage collector. With a socket open this would wait for ever."""
    resources = llm.engine_core.resources
    sockets = [resources.output_socket, resources.input_socket]
    if all(socket is None or socket.closed for socket in sockets):
        resources.ctx.destroy(linger=0)


def _finish_reason(reason: str) -> FinishReason:
    if reason not in _REASONS:
        raise EngineError(f"vLLM ended with {reason!r}")
    return _REASONS[reason]


def _last_delta(
    deltas: list[Delta], counts: Delta, finish: FinishReason | None, pieces: TextPieces | ParsedPieces, step: Any
) -> Delta:
    ended_by_token = step.finish_reason == "stop" and not pieces.stopped
    return replace(
        deltas[-1] if deltas else Delta(),
        finish_reason=finish,
        input_tokens=counts.input_tokens,
        output_tokens=pieces.count + ended_by_token,
        cached_tokens=counts.cached_tokens,
        reasoning_tokens=pieces.reasoning_tokens,
    )


@contextlib.contextmanager
def _map_errors() -> Iterator[None]:
    """vLLM's errors as ours: dead, the request's fault, or this request's alone."""
    from vllm.exceptions import VLLMClientError, VLLMError
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

    try:
        yield
    except EngineDeadError as exc:
        raise EngineDead("vLLM's engine core died") from exc
    except VLLMClientError as exc:
        raise InvalidRequest(str(exc)[:_MAX_MESSAGE]) from exc
    except EngineGenerateError as exc:
        cause = exc.__cause__
        message = f"vLLM failed at this request: {cause or exc}"[:_MAX_MESSAGE]
        raise (InvalidRequest if isinstance(cause, ValueError) else EngineError)(message) from exc
    except VLLMError as exc:
        raise EngineError(str(exc)[:_MAX_MESSAGE]) from exc
    except (ValueError, TypeError) as exc:  # of the chat template, or of the request's shape
        raise InvalidRequest(str(exc)[:_MAX_MESSAGE]) from exc
