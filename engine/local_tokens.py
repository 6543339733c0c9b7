"""Exact token ids for the text of llama.cpp's deltas.

llama.cpp sends nothing for a token that ends inside a UTF-8 character; when the
character is complete its delta has the whole text and the id of the last token only.
Where the text is more than the piece of that id, the text is tokenised again: other ids
than the sampled ones at worst, but ids of exactly this text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Post = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]


class PieceTable:
    """Text of single tokens, asked once each; bounded by the vocabulary."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._pieces: dict[int, str] = {}

    async def tokens_of(self, text: str, reported: list[int]) -> list[int]:
        """The ids that a delta's text stands for."""
        if text.isascii() or len(reported) != 1:
            return reported
        token = reported[0]
        if token not in self._pieces:
            self._pieces[token] = (await self._post("/detokenize", {"tokens": [token]}))["content"]
        if self._pieces[token] == text:
            return reported
        found = await self._post("/tokenize", {"content": text, "add_special": False, "parse_special": False})
        tokens: list[int] = found["tokens"]
        return tokens
