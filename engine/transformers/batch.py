"""Continuous batching: all generations of a model share each step of one thread."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import queue
import threading
from collections.abc import AsyncGenerator
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

from engine.transformers.args import TransformersArgs
from engine.transformers.sampling import Sampling
from schemas.errors import EngineDead, EngineError

_LOOK_S = 1.0
"""Between two looks whether the thread lives, while nothing comes from it."""
_STOP_LIMIT_S = 10.0
_CPU_CACHE_BYTES = 1 << 30
_CPU_BATCH_TOKENS = 512
_ATTENTION = ("sdpa", "paged|eager")
"""With which the library can batch, beside flash attention. Of these only the first also serves streamers."""


def why_not(model: Any) -> str:
    """What keeps this model from sharing a batch, as far as can be told without trying; empty: nothing."""
    attention = str(model.config._attn_implementation)
    if attention not in _ATTENTION and "flash" not in attention:
        return f"attention {attention!r} can not"
    unfit = [
        type(processor).__name__
        for processor in model._get_logits_processor(_with_filters(model.generation_config))
        if not hasattr(processor, "temperature")
        and not hasattr(processor, "top_k")
        and not hasattr(processor, "top_p")
        and not getattr(processor, "supports_continuous_batching", False)
    ]
    return f"its generation_config.json asks for {unfit[0]}" if unfit else ""


class Batch:
    """The library's thread for one model, from `start` to `close`."""

    def __init__(self, model: Any, args: TransformersArgs, *, slots: int, context_length: int, eos: list[int]) -> None:
        self._eos = eos
        self._vocabulary = int(model.config.get_text_config().vocab_size)
        self._numbers = itertools.count()
        config = _with_filters(model.generation_config)
        config.eos_token_id = eos or None
        self._page_size = args.page_size
        self._manager = model.init_continuous_batching(
            generation_config=config,
            continuous_batching_config=_batch_config(model, args, slots, context_length),
        )
        logging.getLogger("ContinuousBatchingLogger").setLevel(logging.WARNING)  # it has a handler of its own
        self._manager.logit_processor.logits_processor.append(_FirstOfTies())

    def start(self) -> None:
        """Blocks until the thread has its cache. Raises EngineDead."""
        manager = self._manager
        manager.warmup()  # makes the cache; without graphs it computes nothing
        manager.background_thread_status.clear()
        # as its start() does, but a daemon: a worker that ends without closing must not wait for it forever
        manager._generation_thread = threading.Thread(target=manager._run_generation_loop, daemon=True)
        manager._generation_thread.start()
        self.check()

    @property
    def cache_tokens(self) -> int:
        """How many tokens all generations together can hold."""
        return int(self._manager.batch_processor.cache.num_blocks) * self._page_size

    async def tokens(self, ids: list[int], limit: int, sampling: Sampling) -> AsyncGenerator[list[int], None]:
        """New ids, with the one that ends the text if one does. Closing it frees the place in the batch.

        Raises EngineError or EngineDead.
        """
        name = f"r{next(self._numbers)}"
        outputs: asyncio.Queue[Any] = asyncio.Queue()
        self._manager.register_result_handler(name, outputs.put_nowait)
        is_finished = False
        try:
            if self._add(name, ids, limit, sampling) is None:
                raise EngineDead("the thread of continuous batching has ended")
            seen = 0
            while not is_finished:
                output = await self._next(outputs)
                if output.error is not None:
                    is_finished = True
                    self.check()
                    raise EngineError(f"transformers: {output.error}")
                is_finished = output.is_finished()
                new, seen = output.generated_tokens[seen:], len(output.generated_tokens)
                yield new
        finally:
            self._forget(name, is_finished=is_finished)

    def _add(self, name: str, ids: list[int], limit: int, sampling: Sampling) -> str | None:
        is_greedy = sampling.temperature == 0
        added: str | None = self._manager.add_request(
            ids,
            request_id=name,
            max_new_tokens=limit,
            streaming=True,
            eos_token_id=self._eos or None,
            temperature=1.0 if is_greedy else max(sampling.temperature, 1e-5),
            top_k=1 if is_greedy else min(sampling.top_k or self._vocabulary, self._vocabulary),
            top_p=1.0 if is_greedy else sampling.top_p,
        )
        return added

    async def _next(self, outputs: asyncio.Queue[Any]) -> Any:
        while True:
            try:
                async with asyncio.timeout(_LOOK_S):
                    return await outputs.get()
            except TimeoutError:
                self.check()

    def _forget(self, name: str, *, is_finished: bool) -> None:
        if not is_finished:
            self._manager.cancel_request(name)
        router = self._manager.output_router
        with router._lock:
            router.result_handlers.pop(name, None)
        while True:  # what came for cancelled ones
            try:
                router.output_queue.get_nowait()
            except queue.Empty:
                return

    def check(self) -> None:
        """Raises EngineDead where the thread has ended or is about to."""
        reason = self._manager.background_thread_status.can_accept_new_requests()
        if reason is not None or not self._manager.is_running():
            cause = self._manager.background_thread_status.fatal_error
            raise EngineDead(f"continuous batching has ended: {cause or reason or 'its thread is gone'}")

    def close(self) -> None:
        """Blocks until the thread has ended, at most 10 s."""
        self._manager.stop(block=True, timeout=_STOP_LIMIT_S, hard_stop=True)


class _FirstOfTies:
    """Where all tokens that are left are equally likely, the first: a greedy choice is the same each time."""

    supports_continuous_batching = True

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        best = scores == scores.amax(dim=-1, keepdim=True)
        is_tie = (best == (scores > -math.inf)).all(dim=-1, keepdim=True)
        first = torch.zeros_like(best).scatter_(-1, best.int().argmax(dim=-1, keepdim=True), True)
        return scores.masked_fill(is_tie & ~first, -math.inf)


def _with_filters(config: Any) -> Any:
    """With values at which the library makes a processor for each parameter that a request may set."""
    values = {name: value for name, value in config.to_dict().items() if value is not None}
    return GenerationConfig(**values | {"do_sample": True, "temperature": 0.7, "top_k": 50, "top_p": 0.9})


def _batch_config(model: Any, args: TransformersArgs, slots: int, context_length: int) -> Any:
    """Graphs and double buffers stay off: other threads use the model for what does not fit the batch."""
    is_cpu = model.device.type == "cpu"
    blocks = args.num_blocks or (_blocks_on_cpu(model, args.page_size, slots, context_length) if is_cpu else None)
    return ContinuousBatchingConfig(
        page_size=args.page_size,
        num_blocks=blocks,
        max_batch_tokens=args.max_batch_tokens or (_CPU_BATCH_TOKENS if is_cpu else None),
        max_requests_per_batch=slots,
        use_cuda_graph=False,
        use_async_batching=False,
        auto_switch_to_flash=False,
        per_request_processors=True,
    )


def _blocks_on_cpu(model: Any, page_size: int, slots: int, context_length: int) -> int:
    """For all slots at full length, or as many as fit the limit, and one at full length at least."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token_bytes = 2 * config.num_hidden_layers * heads * size * model.dtype.itemsize
    tokens: int = max(context_length, min(slots * context_length, _CPU_CACHE_BYTES // token_bytes))
    return math.ceil(tokens / page_size) + slots
