"""Log probabilities as chat completions and the Responses API write them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from schemas.logprobs import LikelyToken, TokenLogprob


def logprob_objects(logprobs: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """One object for each token."""
    return [_object(token) | {"top_logprobs": [_object(other) for other in token.top]} for token in logprobs]


def _object(token: TokenLogprob | LikelyToken) -> dict[str, Any]:
    return {
        "token": token.token,
        "logprob": token.logprob,
        "bytes": list(token.bytes or token.token.encode()),
    }
