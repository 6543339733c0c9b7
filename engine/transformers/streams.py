"""A thread for each generation: what continuous batching can not do, and models that it can not serve."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from engine.transformers.sampling import Naming, Sampler, Sampling
from schemas.errors import EngineDead, EngineError
from schemas.logprobs import TokenLogprob

LIBRARY_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, ImportError)
"""What transformers and PyTorch raise for a model, a request or a device that they can not handle."""
_PICKED = ("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p", "max_new_tokens", "max_length")


class Step(NamedTuple):
    """A generated id."""

    token: int
    logprob: TokenLogprob | None = None


@contextlib.contextmanager
def mapped_errors() -> Iterator[None]:
    """Errors of the library → EngineError, or EngineDead where the device is lost."""
    try:
        yield
    except LIBRARY_ERRORS as exc:
        is_device = isinstance(exc, torch.AcceleratorError)  # after it nothing works any more
        error = EngineDead if is_device else EngineError
        raise error(f"transformers: {type(exc).__name__}: {exc}") from exc


class Streams:
    """Up to `slots` threads that share the model."""

    def __init__(self, model: Any, naming: Naming, *, slots: int, eos: list[int]) -> None:
        self._model = model
        self._naming = naming
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="generation")
        self._runs: set[_Run] = set()
        values = {name: value for name, value in model.generation_config.to_dict().items() if name not in _PICKED}
        self._config = GenerationConfig(
            **{name: value for name, value in values.items() if value is not None}
            | {"do_sample": False, "num_beams": 1, "eos_token_id": eos or None, "pad_token_id": eos[0] if eos else 0}
        )

    async def tokens(
        self, ids: list[int], prompt_length: int, limit: int, sampling: Sampling
    ) -> AsyncGenerator[Step, None]:
        """Generated ids, with the one that ends the text if one does. Closing it ends the thread at its next step.

        `ids`: the prompt of `prompt_length`, and what was generated before. Raises EngineError or EngineDead.
        """
        run = _Run(self._model, self._config, self._naming, sampling, prompt_length)
        self._runs.add(run)
        future = self._pool.submit(run.generate, ids, limit)
        future.add_done_callback(run.end)
        try:
            while (step := await run.steps.get()) is not None:
                yield step
            if run.is_left:
                raise EngineDead("the transformers engine was closed")
            with mapped_errors():
                future.result()
        finally:
            run.is_left = True
            future.cancel()
            self._runs.discard(run)

    def close(self) -> None:
        """Blocks until all threads have ended their step."""
        for run in self._runs:
            run.is_left = True
        self._pool.shutdown(wait=True, cancel_futures=True)


class _Run:
    """One generation: streamer and stopping criterion of the library."""

    def __init__(self, model: Any, config: Any, naming: Naming, sampling: Sampling, prompt_length: int) -> None:
        self._model = model
        self._config = config
        self._naming = naming
        self._loop = asyncio.get_running_loop()
        self._sampler = Sampler(sampling, prompt_length)
        self._top = sampling.top_logprobs
        self._saw_prompt = False
        self.steps: asyncio.Queue[Step | None] = asyncio.Queue()
        """None: the thread has ended."""
        self.is_left = False
        """Nobody wants the rest: it ends at its next step."""

    def generate(self, ids: list[int], limit: int) -> None:
        """In the thread."""
        if self.is_left:
            return
        config = copy.copy(self._config)
        config.max_new_tokens = limit
        inputs = torch.tensor([ids], device=self._model.device)
        self._model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            generation_config=config,
            logits_processor=LogitsProcessorList([self._sampler]),
            stopping_criteria=StoppingCriteriaList([self._should_stop]),
            streamer=self,
        )

    def _should_stop(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        return torch.full((input_ids.shape[0],), self.is_left, dtype=torch.bool, device=input_ids.device)

    def put(self, value: Any) -> None:
        """Called by the library: first with the prompt, then with each token."""
        if not self._saw_prompt:
            self._saw_prompt = True
            return
        token = int(value.reshape(-1)[0])
        logprob = None
        if self._sampler.logprobs:
            logprob = self._naming.logprob_of(token, self._sampler.logprobs.popleft(), self._top)
        self._tell(Step(token, logprob))

    def end(self, future: Future[None] | None = None) -> None:
        """Called by the library when it has ended, which says nothing about errors, and then with the outcome."""
        if future is not None:
            self._tell(None)

    def _tell(self, step: Step | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self.steps.put_nowait, step)
