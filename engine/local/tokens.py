"""Exact token ids for the text of llama.cpp's deltas.

llama.cpp sends nothing for a token that ends inside a UTF-8 character; when the
character is complete its delta has the whole text and the id of the last token only.
Where the text is more than the piece of that id, the text is tokenised again: other ids
than the sampled ones at worst, but ids of exactly this text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Post = Callable[[str, dict[str, Any]], Awaitable[Any]]
_HOLE = "\ufffd"
"""What llama.cpp writes for bytes that are no whole character."""
_WINDOW = 8
"""Tokens to look back: a character has four bytes at most."""


class PieceTable:
    """Text of single tokens, asked once each; bounded by the vocabulary."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._pieces: dict[int, str] = {}
        self._bytes: dict[int, bytes] = {}

    async def tokens_of(self, text: str, reported: list[int], *, check: bool) -> list[int]:
        """The ids that a delta's text stands for; `reported` came since the last text.

        `check`: also where the text is ASCII, because a stop string may have cut it.
        """
        if len(reported) == 1:
            if (text.isascii() and not check) or await self._piece(reported[0]) == text:
                return reported
        else:
            # text that was held back: the id that freed it may be the end of the text, which has none
            for tokens in (reported, reported[:-1]):
                if await self.text_of(tokens) == text:
                    return list(tokens)
        return await self._tokenised(text)

    async def _tokenised(self, text: str) -> list[int]:
        asked = {"content": text, "add_special": False, "parse_special": False, "with_pieces": True}
        found = (await self._post("/tokenize", asked))["tokens"]
        for token in found:
            piece = token["piece"]
            self._bytes[token["id"]] = piece.encode() if isinstance(piece, str) else bytes(piece)
        return [token["id"] for token in found]

    async def text_of(self, tokens: list[int]) -> str:
        """The pieces of these ids, one after the other."""
        text: str = (await self._post("/detokenize", {"tokens": tokens}))["content"]
        return text

    async def bytes_of(self, token: int) -> bytes:
        """The bytes of one id; of a piece of a character only where it came out of a text that was seen here."""
        return self._bytes.get(token) or (await self._piece(token)).encode()

    async def open_end(self, tokens: list[int]) -> list[int]:
        """The last ids that end inside of a character; none where the text ends with a whole one."""
        tail = tokens[-_WINDOW:]
        count = 0
        while count < len(tail) and (await self.text_of(tail[: len(tail) - count])).endswith(_HOLE):
            count += 1
        return tail[len(tail) - count :]

    async def _piece(self, token: int) -> str:
        if token not in self._pieces:
            self._pieces[token] = await self.text_of([token])
        return self._pieces[token]
