"""From an engine's delta to the events of a log: the piece, and the structure that must stand before it."""

from __future__ import annotations

from engine.base import Delta, ToolPiece
from formats.structure import call_events, opening_events
from formats.transcript import Choice, Transcript
from schemas.errors import EngineError, WorkerLost
from schemas.events import Arguments, LogEvent, Reasoning, Text


def piece_events(
    transcript: Transcript, delta: Delta, t: int, choice: Choice | None = None, offset: int = 0
) -> list[LogEvent]:
    """The events of a delta that has a piece, of the first choice where none is given; `offset` as in Text.

    Raises EngineError where it does not fit what is there.
    """
    if choice is None:
        choice = transcript.choices[0]
    if delta.tool is not None:
        return _tool_events(transcript, choice, delta, delta.tool, t)
    which = choice.index
    if delta.text:
        events, index = opening_events(transcript, choice, t, "message")
        events.append(
            Text(
                t=t,
                delta=delta.text,
                tokens=delta.tokens,
                output_index=index,
                logprobs=delta.logprobs,
                choice=which,
                offset=offset,
            )
        )
    else:
        events, index = opening_events(transcript, choice, t, "reasoning")
        events.append(Reasoning(t=t, delta=delta.reasoning, tokens=delta.tokens, output_index=index, choice=which))
    return events


def _tool_events(transcript: Transcript, choice: Choice, delta: Delta, piece: ToolPiece, t: int) -> list[LogEvent]:
    """The ids stand at the arguments, if the piece has some: an attempt that dies between name and arguments
    leaves an open call, which the next one, going on from the ids before it, names again."""
    item, call = choice.open_item, piece.index
    events: list[LogEvent] = []
    if item is not None and item.kind == "function_call" and item.call == call:
        if piece.name not in ("", item.name):
            raise WorkerLost("Another worker would go on with the call of another function.")
        index = item.index
    else:
        if call != choice.calls or not piece.name:
            raise EngineError("The engine sent pieces of its calls out of order.")
        index = len(transcript.items)
        events = call_events(transcript, choice, t, piece.name, () if piece.arguments else delta.tokens)
    if piece.arguments:
        text, tokens, which = piece.arguments, delta.tokens, choice.index
        events.append(Arguments(t=t, delta=text, tokens=tokens, output_index=index, call=call, choice=which))
    return events
