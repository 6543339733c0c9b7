"""From the token ids of one generation to its deltas.

vLLM gives bare ids; the text is made here (engine/detokenize.py), so that each piece goes
out with exactly the ids that it stands for. Where a parser reads the text, ids wait until it
gives a piece: marks that only the parser sees go out with the piece behind them. A parser's state is
a function of the ids alone, so a prefix is fed to it again and what comes of that is dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from engine.base import Delta, ToolPiece
from engine.detokenize import Decode, Detokenizer, Piece
from schemas.logprobs import TokenLogprob

_CONTEXT = 16
"""Ids of the prompt that the first words are decoded with."""


Encode = Callable[[str], list[int]]
"""Ids of a text, without any that mark its begin."""


class Codec(NamedTuple):
    """Ids to text and back."""

    decode: Decode
    encode: Encode

    def rest(self, piece: Piece) -> Piece:
        """What a stop string left of a token, with ids of exactly that text where there are such."""
        if piece.tokens or not piece.text:
            return piece
        ids = self.encode(piece.text)
        return Piece(piece.text, tuple(ids)) if self.decode(ids) == piece.text else piece


class End(NamedTuple):
    """The engine has ended the answer."""

    token: int | None = None
    """Which ended it, and is no part of its text."""


class TextPieces:
    """The deltas of an answer that is text alone."""

    reasoning_tokens = 0

    def __init__(
        self, codec: Codec, *, prompt: Sequence[int], prefix: Sequence[int], before: str, stops: Sequence[str]
    ) -> None:
        self._codec = codec
        self._text = Detokenizer(codec.decode, context=_context(prompt, prefix), before=before, stops=stops)
        self._logprobs = _Logprobs()

    @property
    def stopped(self) -> bool:
        """A stop string was found, and all that stands before it is out."""
        return self._text.stopped

    @property
    def count(self) -> int:
        """Ids used, without those behind a stop string."""
        return self._text.count

    def push(
        self, tokens: Sequence[int], logprobs: Sequence[TokenLogprob] = (), *, end: End | None = None
    ) -> list[Delta]:
        self._logprobs.add(logprobs)
        piece = self._text.push(tokens)
        shown = self._logprobs.take(len(piece.tokens))
        deltas = [Delta(text=piece.text, tokens=piece.tokens, logprobs=shown)]
        if end is not None or self._text.stopped:
            rest = self._text.finish()
            logprobs = self._logprobs.take(len(rest.tokens)) or self._logprobs.covering(rest.text)
            deltas.append(Delta(text=rest.text, tokens=self._codec.rest(rest).tokens, logprobs=logprobs))
        return [delta for delta in deltas if delta.text]


class ParsedPieces:
    """The deltas of an answer that vLLM's parser takes apart: reasoning, text, tool calls."""

    def __init__(
        self,
        codec: Codec,
        *,
        parser: Any,
        chat: Any,
        prompt: Sequence[int],
        prefix: Sequence[int],
        stops: Sequence[str],
        is_silent: Callable[[int], bool],
    ) -> None:
        """`is_silent`: the id is a mark that decodes to nothing, which the parser must see by itself."""
        self._codec = codec
        self._parser = parser
        self._chat = chat
        self._prompt = list(prompt)
        self._is_silent = is_silent
        self._logprobs = _Logprobs()
        self._begin(Detokenizer(codec.decode, context=_context(prompt, ()), stops=stops))
        before = self._replay(prefix) if prefix else ""
        self._prefix = tuple(prefix)
        self._begin(Detokenizer(codec.decode, context=_context(prompt, prefix), before=before, stops=stops))

    def _begin(self, text: Detokenizer) -> None:
        self._text = text
        self._released = 0
        self._waiting: list[int] = []
        """Ids that the parser has seen and no piece has gone out for."""
        self._used: list[int] = []

    def _replay(self, prefix: Sequence[int]) -> str:
        """Bring the parser to where it was; the raw text of the prefix."""
        groups = [*self._groups(prefix), self._text.finish()]
        for group in groups:
            self._parse(group)
        return "".join(group.text for group in groups)

    @property
    def stopped(self) -> bool:
        return self._text.stopped

    @property
    def count(self) -> int:
        return len(self._used)

    @property
    def reasoning_tokens(self) -> int:
        """Of the ids generated now."""
        counted = self._parser.count_reasoning_tokens
        return int(counted([*self._prefix, *self._used])) - int(counted(list(self._prefix)))

    def push(
        self, tokens: Sequence[int], logprobs: Sequence[TokenLogprob] = (), *, end: End | None = None
    ) -> list[Delta]:
        self._logprobs.add(logprobs)
        groups = self._groups(tokens)
        last: Piece | None = None
        if end is not None or self._text.stopped:
            rest = self._codec.rest(self._text.finish())
            last = rest if rest.text or not groups else groups.pop()
        found = [delta for group in groups for delta in self._parse(group)]
        if last is not None:
            found += self._parse(last, end=end or End())
        return found

    def _groups(self, tokens: Sequence[int]) -> list[Piece]:
        """The pieces of raw text that are complete now, at most one for each id."""
        groups: list[Piece] = []
        for token in tokens:
            if self._text.stopped:
                break
            self._used.append(token)
            if self._text.count == self._released and self._is_silent(token):
                groups.append(Piece("", (token,)))
                continue
            piece = self._text.push([token])
            self._released += len(piece.tokens)
            if piece.text:
                groups.append(piece)
        return groups

    def _parse(self, group: Piece, *, end: End | None = None) -> list[Delta]:
        self._waiting += group.tokens
        ids = [*group.tokens, end.token] if end is not None and end.token is not None else list(group.tokens)
        message = self._parser.parse_delta(
            group.text, ids, self._chat, prompt_token_ids=self._prompt, finished=end is not None
        )
        pieces = [] if message is None else self._pieces(message)
        if not pieces:
            return []
        waiting, self._waiting = self._waiting, []
        shares = _share(waiting, len(pieces))
        return [
            replace(piece, tokens=share, logprobs=self._logprobs.take(len(share)))
            for piece, share in zip(pieces, shares, strict=True)
        ]

    def _pieces(self, message: Any) -> list[Delta]:
        pieces: list[Delta] = []
        if message.reasoning:
            pieces.append(Delta(reasoning=message.reasoning))
        if message.content:
            pieces.append(Delta(text=message.content))
        for call in message.tool_calls or []:
            tool = _tool_piece(call)
            is_wanted = call.index == 0 or self._chat.parallel_tool_calls
            if is_wanted and (tool.name or tool.arguments):
                pieces.append(Delta(tool=tool))
        return pieces


class _Logprobs:
    """Logprobs that wait until their tokens go out."""

    def __init__(self) -> None:
        self._waiting: deque[TokenLogprob] = deque()

    def add(self, logprobs: Sequence[TokenLogprob]) -> None:
        self._waiting.extend(logprobs)

    def take(self, count: int) -> tuple[TokenLogprob, ...]:
        return tuple(self._waiting.popleft() for _ in range(min(count, len(self._waiting))))

    def covering(self, text: str) -> tuple[TokenLogprob, ...]:
        """Of the tokens that this text is made of, the last of them maybe cut."""
        found: list[TokenLogprob] = []
        while self._waiting and sum(len(entry.token) for entry in found) < len(text):
            found.append(self._waiting.popleft())
        return tuple(found)


def _context(prompt: Sequence[int], prefix: Sequence[int]) -> list[int]:
    return [*prompt[-_CONTEXT:], *prefix][-_CONTEXT:]


def _tool_piece(call: Any) -> ToolPiece:
    function = call.function
    if function is None:
        return ToolPiece(call.index)
    return ToolPiece(call.index, function.name or "", function.arguments or "")


def _share(tokens: list[int], count: int) -> list[tuple[int, ...]]:
    """One parser step may give several pieces: all but the first get one id each, as far as there are ids."""
    cut = max(1, len(tokens) - (count - 1))
    shares = [tuple(tokens[:cut]), *((token,) for token in tokens[cut:])]
    return shares + [()] * (count - len(shares))
