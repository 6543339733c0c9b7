"""What the clients ask for: random kinds and lengths from a seed, with the one right answer to each."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

RESPONSES_PATH = "/v1/responses"
CHAT_PATH = "/v1/chat/completions"
SYNTHETIC = "synthetic"
_SHORTEST, _LONGEST = 50, 400


class Kind(StrEnum):
    """How a client asks and how it reads the answer."""

    RESPONSES = "responses, streamed"
    CHAT = "chat, streamed"
    RESPONSES_WHOLE = "responses, whole"
    CHAT_WHOLE = "chat, whole"
    BACKGROUND = "background, streamed by GET"
    POLLED = "background, polled"

    @property
    def is_chat(self) -> bool:
        return self in (Kind.CHAT, Kind.CHAT_WHOLE)

    @property
    def is_stream(self) -> bool:
        """The client reads it as a stream in the end."""
        return self in (Kind.RESPONSES, Kind.CHAT, Kind.BACKGROUND)

    @property
    def is_background(self) -> bool:
        return self in (Kind.BACKGROUND, Kind.POLLED)


_WEIGHTS = {
    Kind.RESPONSES: 30,
    Kind.CHAT: 30,
    Kind.RESPONSES_WHOLE: 8,
    Kind.CHAT_WHOLE: 8,
    Kind.BACKGROUND: 16,
    Kind.POLLED: 8,
}


@dataclass(frozen=True)
class Ask:
    """One request and what must come of it."""

    kind: Kind
    model: str
    prompt: str
    tokens: int
    """Upper bound that is sent; the synthetic engine always makes so many."""
    text: str
    """The whole right answer."""
    output_tokens: int
    """The right usage."""
    is_model: bool = False
    """It comes from a real model. Its arithmetic depends on what it computes together, so where two tokens are about
    equally likely, a text beside others may go on otherwise than one that was alone."""

    @property
    def path(self) -> str:
        return CHAT_PATH if self.kind.is_chat else RESPONSES_PATH

    def body(self) -> bytes:
        """As JSON."""
        body: dict[str, Any] = {"model": self.model, "temperature": 0}
        if self.kind.is_chat:
            body |= {"messages": [{"role": "user", "content": self.prompt}], "max_tokens": self.tokens}
        else:
            body |= {"input": self.prompt, "max_output_tokens": self.tokens, "background": self.kind.is_background}
        if self.kind in (Kind.RESPONSES, Kind.CHAT):
            body["stream"] = True
        if self.kind is Kind.CHAT:
            body["stream_options"] = {"include_usage": True}
        return json.dumps(body).encode()


NextAsk = Callable[[random.Random], Ask]


def random_kind(rng: random.Random) -> Kind:
    return rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]


def synthetic_text(tokens: int) -> str:
    """What the synthetic engine says: a hole or a repeat shows at a glance."""
    return "".join(f" t{i}" for i in range(tokens))


def synthetic_ask(rng: random.Random) -> Ask:
    """A response of one to eight seconds."""
    kind, tokens = random_kind(rng), rng.randint(_SHORTEST, _LONGEST)
    return Ask(kind, SYNTHETIC, "hi", tokens, synthetic_text(tokens), tokens)
