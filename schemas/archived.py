"""What the archive keeps of a finished response."""

from __future__ import annotations

import msgspec

from schemas.conversations import Turn
from schemas.ids import ResponseId
from schemas.requests import Format, Lane


class StoredEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A log entry in the archive: the id and the event's JSON exactly as the log had them."""

    id: str
    event: str


class ArchivedResponse(msgspec.Struct, frozen=True, kw_only=True):
    """One finished response: the columns of its row and its complete log, fences included."""

    id: ResponseId
    tenant: str
    format: Format
    model: str
    status: str
    accepted_at_ms: int
    """Unix time."""
    first_text_ms: int | None
    """From acceptance to the first text; None where there was none."""
    duration_ms: int
    """From acceptance to the end."""
    attempts: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    error_code: str | None = None
    engine: str = ""
    """That began it."""
    finish_reason: str | None = None
    """As chat completions name it; None where it failed or was cancelled."""
    reasoning_tokens: int = 0
    cost_micros: int | None = None
    """Millionths of the currency of the price list; None: the model has no prices."""
    error_message: str | None = None
    parent: ResponseId | None = None
    """The response that it goes on from."""
    retry_of: ResponseId | None = None
    conversation: bytes | None = None
    """Id of its conversation, 16 bytes."""
    key_id: bytes | None = None
    """Id of the managed API key that asked, 16 bytes."""
    lane: Lane = "interactive"
    is_stored: bool = True
    metadata: dict[str, str] | None = None
    """As it is now: it can be changed after the end. None: none, or the row does not say."""
    turn: Turn | None = None
    """What it adds to its conversation; with the row of a response that is there already it adds nothing."""
    entries: list[StoredEntry]

    @property
    def ended_at_ms(self) -> int:
        """Unix time."""
        return self.accepted_at_ms + self.duration_ms


class ListedResponse(msgspec.Struct, frozen=True, kw_only=True):
    """One of a list of stored responses."""

    id: ResponseId
    metadata: dict[str, str] | None
    """As it is now; None: as its log says."""
    entries: list[StoredEntry]


class ResponseQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which stored responses; what is empty does not count."""

    model: str = ""
    metadata: dict[str, str] = {}
    """Each of these names must have this value."""
