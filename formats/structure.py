"""The structure events around the pieces of output: items and parts that open and close."""

from __future__ import annotations

from formats.transcript import Item, Transcript
from schemas.events import (
    ArgumentsDone,
    ItemAdded,
    ItemDone,
    ItemKind,
    LogEvent,
    PartAdded,
    PartDone,
    ReasoningDone,
    TextDone,
)


def opening_events(transcript: Transcript, t: int, kind: ItemKind) -> tuple[list[LogEvent], int]:
    """What must stand before a piece of a message or of reasoning, usually nothing, and the index of its item."""
    item = transcript.open_item
    if item is not None and item.kind == kind:
        if item.content_open:
            return [], item.index
        if not item.pieces and not item.part_open:
            return [PartAdded(t=t, output_index=item.index)], item.index  # an attempt died between the two
    index = len(transcript.items)
    added = ItemAdded(t=t, output_index=index, item=kind)
    return [*closing_events(transcript, t, complete=True), added, PartAdded(t=t, output_index=index)], index


def call_events(transcript: Transcript, t: int, name: str, tokens: tuple[int, ...]) -> list[LogEvent]:
    """What opens the next call of a function."""
    index = len(transcript.items)
    added = ItemAdded(t=t, output_index=index, item="function_call", name=name, call=transcript.calls, tokens=tokens)
    return [*closing_events(transcript, t, complete=True), added]


def closing_events(transcript: Transcript, t: int, *, complete: bool) -> list[LogEvent]:
    """What closes the item that is open, if one is."""
    item = transcript.open_item
    if item is None:
        return []
    events = _content_done(item, t) if item.content_open else []
    if item.part_open:
        events.append(PartDone(t=t, output_index=item.index))
    return [*events, ItemDone(t=t, output_index=item.index, status="completed" if complete else "incomplete")]


def _content_done(item: Item, t: int) -> list[LogEvent]:
    match item.kind:
        case "message":
            return [TextDone(t=t, output_index=item.index)]
        case "reasoning":
            return [ReasoningDone(t=t, output_index=item.index)]
        case "function_call":
            return [ArgumentsDone(t=t, output_index=item.index)]
