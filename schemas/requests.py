"""What is asked of a worker, and the entries of the streams around it.

Shapes are versioned by `v`; unknown fields are ignored, so a newer writer may add some.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from schemas.ids import ResponseId

Role = Literal["system", "developer", "user", "assistant"]
Lane = Literal["interactive", "batch"]
Format = Literal["responses", "chat"]
OnDisconnect = Literal["cancel", "continue"]
Takeover = Literal["continue", "restart", "fail"]
"""What another worker does with a response that one began: goes on with its text; begins again if nothing
was shown, else ends it; ends it if it was begun at all."""
_Id = Annotated[ResponseId, Meta(pattern=r"\Aresp_[0-9a-f]{32}\Z")]
"""Checked, because keys are made of it."""
LANES: tuple[Lane, ...] = ("interactive", "batch")
"""In the order in which a worker reads them."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One turn of the conversation; content parts are joined to one text."""

    role: Role
    content: str


class GenerationRequest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The complete request as a worker needs it: messages resolved, names canonical."""

    model: str
    messages: list[Message]
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: list[str] = []
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    metadata: dict[str, str] = {}
    user: str | None = None
    include_usage: bool = False
    """Chat completions: a last chunk with the usage (`stream_options.include_usage`)."""
    deadline_at_ms: int = 0
    """Unix time after which the response is ended with `failed`; 0: none."""
    traceparent: str | None = None
    background: bool = False
    """Nobody waits for it: it goes on without a viewer."""
    on_disconnect: OnDisconnect = "cancel"
    """What becomes of it when its last viewer has left (`x-openchat-on-disconnect`)."""
    takeover: Takeover | None = None
    """What becomes of it when its worker dies (`x-openchat-takeover`); None: what the model says."""

    @property
    def needs_viewer(self) -> bool:
        """It is ended when its last viewer has left."""
        return not self.background and self.on_disconnect == "cancel"

    def prompt_messages(self) -> list[Message]:
        """The messages with the instructions in front."""
        if self.instructions is None:
            return self.messages
        return [Message("system", self.instructions), *self.messages]


class RequestEntry(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An entry of `oc:requests:{<model>:<lane>}`."""

    v: int = 1
    id: _Id
    tenant: str
    accepted_at_ms: int
    request: GenerationRequest
    format: Format = "responses"
    """The API in whose words it was asked; for who sends it again."""


class FinishedEntry(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An entry of `oc:finished`: a claim check, the log holds the rest."""

    v: int = 1
    id: _Id
    status: str
    letter: str = ""
    """The dead letter that this was sent again from; should it be refused again, a new one takes its place."""


class ControlEntry(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An entry of `oc:control`, which every worker tails: a hint, the log is the truth."""

    v: int = 1
    ended: _Id
    """This response was ended by somebody else: look at its log and stop generating."""


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An entry of `oc:dead`, with everything needed to send it again."""

    v: int = 1
    stream: str
    """Key of the stream from which the entry came."""
    entry_id: str
    reason: str
    """Stable, for programs."""
    error: str = ""
    """What was wrong, in words."""
    attempts: int = 0
    body: str
    """The entry as it stood; bytes that are no UTF-8 are escaped with backslashes."""
