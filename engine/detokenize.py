"""From token ids to pieces of text, one id at a time, for engines whose library gives ids.

A piece goes out with exactly the ids that it stands for, so that a response can be
continued behind any piece. Text is held back, and its ids with it, while a UTF-8
character is incomplete or a stop string may have begun.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

Decode = Callable[[list[int]], str]
"""Text of ids; what is no whole character in UTF-8 comes out as U+FFFD."""
_BROKEN = "\ufffd"
_WINDOW = 8
"""Ids in front that are decoded again with the new ones: whether a word has a space before it depends on them."""
_MAX_SPLIT = 8
"""No character is split over so many ids: the model wrote bytes that are no UTF-8, and they go out as U+FFFD."""


class Piece(NamedTuple):
    """Text and the ids that it stands for. Text without ids: what a stop string left of a token."""

    text: str = ""
    tokens: tuple[int, ...] = ()


class Detokenizer:
    """The text of one generation.

    `context`: the ids that the generated ones follow in the same text; of an answer to a chat these are
    the ids generated before (none at its start), of a bare prompt also the prompt's.
    `before`: the text generated before, in which a stop string may have begun.
    """

    def __init__(
        self, decode: Decode, *, context: Sequence[int] = (), before: str = "", stops: Iterable[str] = ()
    ) -> None:
        self._decode = decode
        self._stops = tuple(stop for stop in stops if stop)
        self._reach = max((len(stop) for stop in self._stops), default=1) - 1
        self._before = before[len(before) - self._reach :] if self._reach < len(before) else before
        self._window = list(context[-_WINDOW:])
        # ids that begin a character were cut off from those that complete it: its text comes with these
        self._start = len(decode(self._window).rstrip(_BROKEN)) if self._window else 0
        self._held: list[int] = []
        self._text = ""
        self._marks: list[tuple[int, int]] = []
        """How many of the held ids, and how much of their text, may go out together."""
        self.count = 0
        """Ids used so far: with those of a stop string, without those behind it."""
        self.stopped = False
        """A stop string was found; what is left comes from `finish`."""

    def push(self, tokens: Iterable[int]) -> Piece:
        """What may go out after these ids, maybe nothing."""
        pieces: list[Piece] = []
        for token in tokens:
            if self.stopped:
                break
            pieces.append(self._push(token))
        return Piece("".join(p.text for p in pieces), tuple(token for p in pieces for token in p.tokens))

    def finish(self) -> Piece:
        """What was held back, without a last character that stayed incomplete."""
        if self.stopped:
            return Piece(self._text)
        return self._release(len(self._text))

    def _push(self, token: int) -> Piece:
        self.count += 1
        self._held.append(token)
        self._text = self._decode([*self._window, *self._held])[self._start :]
        whole = self._text.rstrip(_BROKEN)
        since_mark = len(self._held) - (self._marks[-1][0] if self._marks else 0)
        if len(whole) == len(self._text) or since_mark >= _MAX_SPLIT:
            self._marks.append((len(self._held), len(self._text)))
        cut = self._find_stop()
        if cut is None:
            return self._release(len(self._text) - self._maybe_stop(whole))
        self.stopped = True
        self._text = self._text[:cut]
        return self._release(cut)

    def _find_stop(self) -> int | None:
        """Where in the held text a stop string begins; 0 where it began before."""
        text = self._before + self._text
        found = [text.find(stop, max(0, len(self._before) - len(stop) + 1)) for stop in self._stops]
        begins = [at for at in found if at >= 0]
        return max(0, min(begins) - len(self._before)) if begins else None

    def _maybe_stop(self, whole: str) -> int:
        """Characters at the end of the held text that may belong to a stop string or to a split character."""
        split = len(self._text) - len(whole)
        text = self._before + whole
        for length in range(min(self._reach, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return split + length
        return 0

    def _release(self, limit: int) -> Piece:
        """The longest piece of at most so many characters that ends where an id does."""
        fitting = [mark for mark in self._marks if 0 < mark[1] <= limit]
        if not fitting:
            return Piece()
        ids, length = fitting[-1]
        piece = Piece(self._text[:length], tuple(self._held[:ids]))
        self._window = [*self._window, *self._held[:ids]][-_WINDOW:]
        self._start = len(self._decode(self._window))
        self._before = (self._before + piece.text)[-self._reach :] if self._reach else ""
        self._held = self._held[ids:]
        self._text = self._text[length:]
        self._marks = [(n - ids, at - length) for n, at in self._marks if n > ids]
        return piece
