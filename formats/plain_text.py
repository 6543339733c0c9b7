"""Plain text: what the model says, and nothing else: no reasoning, no calls, no word about how it ended.

The cursor is a number of bytes: of the text in UTF-8, which any client can count.
"""

from __future__ import annotations

from formats.sse import Tail, is_first_choice
from schemas.errors import InvalidCursor
from schemas.events import Text


def encode_plain_text(tail: Tail, index: int) -> bytes:
    """The text of one entry; of several choices that of the first."""
    event = tail[index].event
    return event.delta.encode() if isinstance(event, Text) and is_first_choice(event) else b""


def place_of(tail: Tail, offset: int) -> tuple[int, int]:
    """The entry in which byte `offset` stands, and how many of its bytes are before it.

    Raises InvalidCursor beyond the end; at the end it is the entry that is to come.
    """
    left = offset
    for index in range(len(tail)):
        size = len(encode_plain_text(tail, index))
        if left < size:
            return index, left
        left -= size
    if left:
        raise InvalidCursor(f"The offset {offset} is beyond the end of the text, {offset - left}.", param="offset")
    return len(tail), 0
