"""How likely a token was."""

from __future__ import annotations

import msgspec


class LikelyToken(msgspec.Struct, frozen=True, gc=False):
    """A token that could have stood there; `token` is its text."""

    token: str
    logprob: float
    bytes: tuple[int, ...] = ()
    """Its bytes, where they are not simply the text in UTF-8 (a piece of a character)."""


class TokenLogprob(msgspec.Struct, frozen=True, omit_defaults=True):
    """The token that was chosen, natural logarithm of its probability, and the most likely ones beside it."""

    token: str
    logprob: float
    bytes: tuple[int, ...] = ()
    top: tuple[LikelyToken, ...] = ()
