"""How the next token is chosen: the parameters of a request, and the choice for one that does not share a batch."""

from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
import torch

from schemas.logprobs import LikelyToken, TokenLogprob
from schemas.requests import GenerationRequest

_SEED_SPACE = 1 << 63
_STEP = 0x9E3779B97F4A7C15
"""Odd, so that seed and position give another seed for each position."""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of one generation, with the model's defaults where the request names none."""

    temperature: float = 1.0
    """0: greedy."""
    top_k: int = 0
    """0: all."""
    top_p: float = 1.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    logprobs: bool = False
    top_logprobs: int = 0

    @property
    def fits_batch(self) -> bool:
        """Continuous batching can do it: the library has no more than temperature, top_k and top_p per request."""
        penalties = self.presence_penalty or self.frequency_penalty or self.logit_bias
        return self.seed is None and not penalties and not self.logprobs

    @classmethod
    def of(cls, request: GenerationRequest, defaults: Any) -> Sampling:
        """`defaults`: the model's GenerationConfig."""
        return cls(
            temperature=_first(request.temperature, defaults.temperature, 1.0),
            top_k=defaults.top_k or 0,
            top_p=_first(request.top_p, defaults.top_p, 1.0),
            seed=request.seed,
            presence_penalty=request.presence_penalty or 0.0,
            frequency_penalty=request.frequency_penalty or 0.0,
            logit_bias=request.logit_bias,
            logprobs=request.logprobs,
            top_logprobs=request.top_logprobs,
        )


def _first(*values: float | None) -> float:
    return float(next(value for value in values if value is not None))


class Sampler:
    """A logits processor behind which the most likely token is the choice.

    Noise of a Gumbel distribution on the log-probabilities makes the maximum a sample. With a seed the noise
    depends on the seed and the position alone: a continuation draws what the uninterrupted generation would have.
    """

    def __init__(self, sampling: Sampling, prompt_length: int) -> None:
        self._sampling = sampling
        self._prompt_length = prompt_length
        self.logprobs: deque[Any] = deque()
        """Of all tokens, one for each step, before penalties and temperature, where they were asked for.
        The oldest is taken away with its token: on CUDA the library is a step ahead of its streamer."""

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        sampling = self._sampling
        if sampling.logprobs:
            self.logprobs.append(torch.log_softmax(scores[0], dim=-1))
        generated = input_ids[0, self._prompt_length :]
        if sampling.presence_penalty or sampling.frequency_penalty:
            scores = self._penalised(generated, scores)
        if sampling.logit_bias:
            scores = self._biased(scores)
        if sampling.temperature == 0:
            return scores
        scores = _filtered(scores / max(sampling.temperature, 1e-5), sampling)
        noise = torch.empty_like(scores).exponential_(generator=self._generator(len(generated), scores.device))
        return scores - noise.log()

    def _penalised(self, generated: Any, scores: Any) -> Any:
        """As OpenAI defines them: by how often a token was generated, the prompt not counted."""
        counts = torch.bincount(generated, minlength=scores.shape[-1])[None, : scores.shape[-1]]
        scores = scores - self._sampling.frequency_penalty * counts
        return scores - self._sampling.presence_penalty * (counts > 0)

    def _biased(self, scores: Any) -> Any:
        bias = self._sampling.logit_bias
        tokens = torch.tensor(list(bias), device=scores.device)
        values = torch.tensor(list(bias.values()), device=scores.device, dtype=scores.dtype)
        return scores.index_add(-1, tokens, values[None])

    def _generator(self, position: int, device: Any) -> Any:
        seed = self._sampling.seed
        mixed = secrets.randbits(62) if seed is None else (seed + (position + 1) * _STEP) % _SEED_SPACE
        return torch.Generator(device=device).manual_seed(mixed)


def _filtered(scores: Any, sampling: Sampling) -> Any:
    if 0 < sampling.top_k < scores.shape[-1]:
        least = scores.topk(sampling.top_k, dim=-1).values[..., -1:]
        scores = scores.masked_fill(scores < least, -math.inf)
    if sampling.top_p < 1:
        ordered, order = scores.sort(dim=-1, descending=True)
        chances = ordered.softmax(dim=-1)
        too_rare = chances.cumsum(dim=-1) - chances >= sampling.top_p
        too_rare[..., 0] = False
        scores = scores.masked_fill(too_rare.scatter(-1, order, too_rare), -math.inf)
    return scores


class Naming:
    """Log-probabilities of ids → of tokens by their text and bytes."""

    def __init__(self, tokenizer: Any, decode: Callable[[list[int]], str]) -> None:
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        self._tokenizer = tokenizer
        self._decode = decode
        self._byte_of = {char: value for value, char in bytes_to_unicode().items()}

    def logprob_of(self, token: int, logprobs: Any, top: int) -> TokenLogprob:
        """Of a chosen token; `logprobs` has those of all tokens."""
        best = logprobs.topk(top) if top else None
        likely = [] if best is None else zip(best.indices.tolist(), best.values.tolist(), strict=True)
        text, raw = self._name(token)
        return TokenLogprob(
            token=text,
            logprob=float(logprobs[token]),
            bytes=raw,
            top=tuple(self._likely(other, value) for other, value in likely),
        )

    def _likely(self, token: int, logprob: float) -> LikelyToken:
        text, raw = self._name(token)
        return LikelyToken(token=text, logprob=logprob, bytes=raw)

    def _name(self, token: int) -> tuple[str, tuple[int, ...]]:
        """Text, and the bytes where it is a piece of a character."""
        text = self._decode([token])
        raw = str(self._tokenizer.convert_ids_to_tokens(token))
        if not text:
            return raw, ()  # a special token
        if "\ufffd" not in text:
            return text, ()
        if len(raw) == 6 and raw.startswith("<0x"):  # byte fallback of SentencePiece
            return text, (int(raw[3:5], 16),)
        if all(char in self._byte_of for char in raw):
            return text, tuple(self._byte_of[char] for char in raw)
        return text, ()
