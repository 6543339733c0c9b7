"""What the headers of an answer say of the response in it."""

from __future__ import annotations

from urllib.parse import quote

from ingress.gateway import Gateway
from ingress.tails import Tail
from schemas.events import Fence, InProgress

_BEGINS_BY = 4
"""`in_progress` comes within the first entries, or never."""


def answer_headers(gateway: Gateway, tail: Tail) -> dict[str, str]:
    """Id, model, engine where one is known, and attempts so far: a stream that begins with its request has 0 or 1."""
    model = tail.accepted.request.shown_model
    served = gateway.directory.known(model)
    engine = _engine(tail) or (served.engine if served is not None else "")
    return {
        "x-openchat-response-id": tail.id,
        "x-openchat-model": _written(model),
        "x-openchat-attempts": str(sum(isinstance(f.event, Fence) and not f.event.released for f in tail.fences)),
        **({"x-openchat-engine": _written(engine)} if engine else {}),
    }


def _engine(tail: Tail) -> str:
    """The one that began it; empty where none did, or it did not say."""
    begun = (entry.event for entry in tail.entries[:_BEGINS_BY])
    return next((event.engine for event in begun if isinstance(event, InProgress)), "")


def _written(name: str) -> str:
    """Headers hold ASCII: what is none is percent-encoded."""
    return name if name.isascii() and name.isprintable() else quote(name)
