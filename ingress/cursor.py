"""Where a client wants to go on: a sequence (`starting_after`) or an entry id (`Last-Event-ID`)."""

from __future__ import annotations

import re

from ingress.tails import Tail
from schemas.errors import InvalidCursor, StreamDiverged
from schemas.events import EntryId, parse_entry_id

_SEQUENCE = re.compile(r"[0-9]{1,15}")


class Cursor:
    """What the client has seen last; nothing where it starts."""

    def __init__(self, starting_after: str | None, last_event_id: str | None) -> None:
        """Raises InvalidCursor: malformed, or both given and different."""
        self.sequence = _parse_sequence(starting_after) if starting_after is not None else None
        self.entry_id = _parse_entry_id(last_event_id) if last_event_id is not None else None
        if self.entry_id is not None:
            if self.sequence is not None and self.sequence != self.entry_id.sequence:
                raise InvalidCursor("starting_after and Last-Event-ID are different; give one.", param="starting_after")
            self.sequence = self.entry_id.sequence

    def start(self, tail: Tail) -> int:
        """Index of the first entry to send. Raises InvalidCursor beyond the end, StreamDiverged."""
        if self.sequence is None:
            return 0
        if self.is_beyond(tail):
            last = len(tail.entries) - 1
            raise InvalidCursor(f"The cursor {self.sequence} is beyond the end of the stream, {last}.")
        if self.entry_id is not None and tail.entries[self.sequence].id != self.entry_id:
            raise StreamDiverged
        return self.sequence + 1

    def is_beyond(self, tail: Tail) -> bool:
        return self.sequence is not None and self.sequence >= len(tail.entries)


def _parse_sequence(text: str) -> int:
    if not _SEQUENCE.fullmatch(text):
        raise InvalidCursor(
            "starting_after must be the sequence_number of an event: a whole number from 0.", param="starting_after"
        )
    return int(text)


def _parse_entry_id(text: str) -> EntryId:
    entry_id = parse_entry_id(text)
    if entry_id is None or entry_id.is_fence:
        raise InvalidCursor("Last-Event-ID must be the id of an event of this stream, like 1-12.")
    return entry_id
