"""Logprobs of exactly the tokens that a delta stands for.

llama.cpp reports those of the tokens that it sends, and it sends none that ends inside of a character. The
others are asked for one by one, among the likely tokens after the same text. What it reports is of the model
itself, before sampling, so the token that is sampled for that question may be any that is a whole character.
"""

from __future__ import annotations

import msgspec

from engine.local.server import Likely, LlamaServer, Probability
from engine.local.tokens import PieceTable
from schemas.errors import EngineError
from schemas.logprobs import LikelyToken, TokenLogprob

_WHOLE = "?"
_LIKELY = 256
_ALL = 1 << 20
"""More than any vocabulary has."""


class LogprobReader:
    """Of one generation, which begins after the ids `before`."""

    def __init__(self, server: LlamaServer, pieces: PieceTable, before: list[int], top: int) -> None:
        self._server = server
        self._pieces = pieces
        self._before = before
        self._top = top

    async def read(self, tokens: list[int], reported: list[Probability]) -> tuple[TokenLogprob, ...]:
        """One for each of `tokens`, which come next; `reported` are some of theirs, in order."""
        entries, rest = [], list(reported)
        for token in tokens:
            if rest and rest[0].id == token:
                found = rest.pop(0)
            else:
                found = await self._asked(token)
            entries.append(await self._entry(found))
            self._before.append(token)
        return tuple(entries)

    async def _asked(self, token: int) -> Probability:
        for count in (_LIKELY, _ALL):
            likely = await self._likely(count)
            found = next((one for one in likely if one.id == token), None)
            if found is not None:
                return Probability(id=token, logprob=found.logprob, top=[*likely[: self._top], found])
        raise EngineError("llama.cpp gives no logprob for a token that it sampled")

    async def _likely(self, count: int) -> list[Likely]:
        body = {
            "prompt": self._before,
            "n_predict": 1,
            "temperature": 0.0,
            "logit_bias": [[_WHOLE, 1e6]],
            "n_probs": count,
            "cache_prompt": True,
        }
        answer = await self._server.post("/completion", body)
        return msgspec.convert(answer["completion_probabilities"][0], Probability).top

    async def _entry(self, found: Probability) -> TokenLogprob:
        likely = next((one for one in found.top if one.id == found.id), None)
        raw = bytes(likely.bytes) if likely is not None else await self._pieces.bytes_of(found.id)
        token, extra = _text_and_bytes(raw)
        top = tuple(_likely(one) for one in found.top[: self._top])
        return TokenLogprob(token=token, logprob=min(0.0, found.logprob), bytes=extra, top=top)


def _likely(one: Likely) -> LikelyToken:
    token, extra = _text_and_bytes(bytes(one.bytes))
    return LikelyToken(token=token, logprob=min(0.0, one.logprob), bytes=extra)


def _text_and_bytes(raw: bytes) -> tuple[str, tuple[int, ...]]:
    """The text, and the bytes where they are not simply that."""
    text = raw.decode("utf-8", "replace")
    return text, () if text.encode() == raw else tuple(raw)
