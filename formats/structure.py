"""The structure events around the pieces of output: items and parts that open and close."""

from __future__ import annotations

from formats.transcript import Choice, Item, Transcript
from schemas.events import (
    ArgumentsDone,
    ChoiceEnd,
    ItemAdded,
    ItemDone,
    ItemKind,
    LogEvent,
    PartAdded,
    PartDone,
    ReasoningDone,
    TextDone,
)


def opening_events(transcript: Transcript, choice: Choice, t: int, kind: ItemKind) -> tuple[list[LogEvent], int]:
    """What must stand before a piece of a message or of reasoning, usually nothing, and the index of its item."""
    item = choice.open_item
    if item is not None and item.kind == kind:
        if item.content_open:
            return [], item.index
        if not item.pieces and not item.part_open:
            return [PartAdded(t=t, output_index=item.index)], item.index  # an attempt died between the two
    index = len(transcript.items)
    added = ItemAdded(t=t, output_index=index, item=kind, choice=choice.index)
    return [*_previous_done(choice, t), added, PartAdded(t=t, output_index=index)], index


def call_events(transcript: Transcript, choice: Choice, t: int, name: str, tokens: tuple[int, ...]) -> list[LogEvent]:
    """What opens the next call of a function."""
    added = ItemAdded(
        t=t,
        output_index=len(transcript.items),
        item="function_call",
        name=name,
        call=choice.calls,
        tokens=tokens,
        choice=choice.index,
    )
    return [*_previous_done(choice, t), added]


def closing_events(transcript: Transcript, t: int, *, complete: bool) -> list[LogEvent]:
    """What closes the items that are open: one of each choice at most."""
    return [event for item in transcript.open_items for event in _item_done(item, t, complete=complete)]


def end_events(transcript: Transcript, t: int, end: ChoiceEnd) -> list[LogEvent]:
    """How one of several choices ends. One that has no open item gets an empty message to say it with."""
    item = transcript.choice(end.choice).open_item
    if item is not None:
        return _item_done(item, t, complete=end.reason == "stop", end=end)
    added = ItemAdded(t=t, output_index=len(transcript.items), choice=end.choice)
    item = Item(added)
    item.part_open = item.content_open = True
    part = PartAdded(t=t, output_index=item.index)
    return [added, part, *_item_done(item, t, complete=end.reason == "stop", end=end)]


def _previous_done(choice: Choice, t: int) -> list[LogEvent]:
    return [] if choice.open_item is None else _item_done(choice.open_item, t, complete=True)


def _item_done(item: Item, t: int, *, complete: bool, end: ChoiceEnd | None = None) -> list[LogEvent]:
    events = _content_done(item, t) if item.content_open else []
    if item.part_open:
        events.append(PartDone(t=t, output_index=item.index))
    done = ItemDone(t=t, output_index=item.index, status="completed" if complete else "incomplete", end=end)
    return [*events, done]


def _content_done(item: Item, t: int) -> list[LogEvent]:
    match item.kind:
        case "message":
            return [TextDone(t=t, output_index=item.index)]
        case "reasoning":
            return [ReasoningDone(t=t, output_index=item.index)]
        case "function_call":
            return [ArgumentsDone(t=t, output_index=item.index)]
