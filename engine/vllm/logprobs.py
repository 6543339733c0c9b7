"""Log probabilities as vLLM gives them, by id, with the text and bytes of each token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.detokenize import Decode
from schemas.logprobs import LikelyToken, TokenLogprob

_BROKEN = "\ufffd"
_WORD = "\u2581"
"""A space in the pieces of SentencePiece."""
_FLOOR = -9999.0
"""For minus infinity, which JSON has not."""


class TokenTexts:
    """Text and bytes of single tokens, by id; bounded by the vocabulary."""

    def __init__(self, tokenizer: Any, decode: Decode) -> None:
        self._tokenizer = tokenizer
        self._decode = decode
        self._known: dict[int, tuple[str, tuple[int, ...]]] = {}

    def of(self, token: int) -> tuple[str, tuple[int, ...]]:
        """The text, and the bytes where they are not simply that."""
        if token not in self._known:
            self._known[token] = self._find(token)
        return self._known[token]

    def _find(self, token: int) -> tuple[str, tuple[int, ...]]:
        text = self._decode([token])
        (name,) = self._tokenizer.convert_ids_to_tokens([token])
        if isinstance(name, bytes):
            name = name.decode("utf-8", "replace")
        if _BROKEN in text:
            return text, _bytes_of(name)
        if name.startswith(_WORD) and not text.startswith(" "):
            text = " " + text
        return text, ()


def token_logprobs(
    texts: TokenTexts, tokens: Sequence[int], found: Sequence[Mapping[int, Any]], top: int
) -> list[TokenLogprob]:
    """One for each id; `found` has for each place what vLLM reports, by id."""
    return [_token_logprob(texts, token, at_place, top) for token, at_place in zip(tokens, found, strict=False)]


def _token_logprob(texts: TokenTexts, token: int, at_place: Mapping[int, Any], top: int) -> TokenLogprob:
    ranked = sorted(at_place.items(), key=lambda item: item[1].logprob, reverse=True)[:top]
    likely = tuple(
        LikelyToken(text, max(entry.logprob, _FLOOR), raw)
        for text, raw, entry in ((*texts.of(other), entry) for other, entry in ranked)
    )
    text, raw = texts.of(token)
    return TokenLogprob(text, max(at_place[token].logprob, _FLOOR), raw, likely)


def _bytes_of(name: str) -> tuple[int, ...]:
    """The bytes of a piece of a character, from the token's name in the vocabulary."""
    if name.startswith("<0x") and name.endswith(">"):
        return (int(name[3:-1], 16),)
    return tuple(_BYTES[char] for char in name if char in _BYTES)


def _byte_names() -> dict[str, int]:
    """Byte-level BPE names bytes by printable characters: those that are, by themselves, others from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTES = _byte_names()
