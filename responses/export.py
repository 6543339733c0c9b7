"""One archived response as one JSON object: what it cost, what was asked, what was answered."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from formats.embeddings import embedding_list
from formats.responses import response_object
from formats.transcript import Transcript, transcript_of
from responses.stored import with_metadata
from schemas.archived import ArchivedResponse
from schemas.events import Accepted, Completed
from streams.logs import decode_entry


def export_object(archived: ArchivedResponse, *, with_events: bool) -> dict[str, Any]:
    """Without `request` and `response` where the content is not kept: deleted, or never stored. Raises BadEntry."""
    exported = _columns(archived)
    if not archived.entries or not archived.is_stored:
        return exported
    entries = [decode_entry(entry.id, entry.event.encode()) for entry in archived.entries]
    transcript = transcript_of(with_metadata(entries, archived.metadata))
    asked = entries[0].event
    assert isinstance(asked, Accepted)  # the first event of every log
    exported |= {"request": asked.request, "response": _answer(transcript)}
    if with_events:
        exported["events"] = [
            {"id": entry.id, "event": msgspec.Raw(entry.event.encode())} for entry in archived.entries
        ]
    return exported


def _columns(archived: ArchivedResponse) -> dict[str, Any]:
    """All but the log; ids and times as people write them."""
    columns: dict[str, Any] = msgspec.structs.asdict(archived)
    for name in ("entries", "turn", "accepted_at_ms"):
        del columns[name]
    conversation, key = archived.conversation, archived.key_id
    return columns | {
        "conversation": f"conv_{conversation.hex()}" if conversation else None,
        "key_id": key.hex() if key else None,
        "accepted_at": _utc(archived.accepted_at_ms),
        "ended_at": _utc(archived.ended_at_ms),
    }


def _utc(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _answer(transcript: Transcript) -> dict[str, Any] | None:
    """As the Responses API shows it, whatever it was asked in; vectors as embeddings have them."""
    assert transcript.accepted is not None
    if transcript.accepted.request.embed is None:
        return response_object(transcript)
    return embedding_list(transcript) if isinstance(transcript.terminal, Completed) else None
