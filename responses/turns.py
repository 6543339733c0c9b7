"""What a response adds to its conversation."""

from __future__ import annotations

import msgspec

from formats.items import ItemObject, turn_items
from formats.transcript import Transcript
from schemas.conversations import StoredItem, Turn
from schemas.events import Completed, Incomplete
from schemas.ids import ConversationId, ResponseId

_encode = msgspec.json.Encoder().encode


def turn_of(transcript: Transcript) -> Turn | None:
    """Its input and output. None where it is in no conversation, was not to be stored, failed or was cancelled:
    what is sent again after that would else stand there twice."""
    accepted = transcript.accepted
    assert accepted is not None
    request = accepted.request
    if not request.conversation or not request.store or not isinstance(transcript.terminal, Completed | Incomplete):
        return None
    items = [stored_item(item, accepted.id) for item in turn_items(transcript)]
    return Turn(conversation=ConversationId(request.conversation), items=items)


def stored_item(item: ItemObject, response_id: ResponseId | None = None) -> StoredItem:
    """An item as it is kept."""
    return StoredItem(id=item["id"], kind=item["type"], body=_encode(item), response_id=response_id)
