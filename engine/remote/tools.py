"""Pieces of tool calls as servers send them → pieces as the protocol wants them.

Servers leave out `index` or `id`, give every call the index 0, send a name in pieces or again with each piece,
send arguments as an object, or a whole call at once. A piece belongs to the call of its index; or of its id; or
to the last one. A call that has arguments is over when another name comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from engine.base import ToolPiece
from engine.remote.errors import nonsense


class FunctionPart(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None
    """JSON text in pieces; some servers send the object itself."""


class ToolCallPart(msgspec.Struct, frozen=True):
    """One entry of `delta.tool_calls`."""

    index: int | None = None
    id: str | None = None
    function: FunctionPart | None = None


class _Call:
    def __init__(self, number: int, part: ToolCallPart) -> None:
        self.number = number
        self.index = part.index
        self.id = part.id or ""
        self.name = ""
        self.arguments = ""
        """Held back until the name is whole."""
        self.is_named = False
        """Its first piece, which has the whole name, is out."""
        self.has_arguments = False

    def piece(self) -> ToolPiece:
        """What is held back."""
        piece = ToolPiece(index=self.number, name="" if self.is_named else self.name, arguments=self.arguments)
        self.is_named = True
        self.arguments = ""
        return piece


class ToolCalls:
    """The calls of one response."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []

    def read(self, part: ToolCallPart) -> Iterator[ToolPiece]:
        """A name is held back until it is whole: when arguments come, or another call, or the end."""
        function = part.function or FunctionPart()
        name, arguments = function.name or "", _text(function.arguments)
        call = self._find(part, name)
        if call is None:
            yield from self._named()
            call = _Call(len(self._calls), part)
            self._calls.append(call)
        if not call.is_named and name != call.name:  # the same again is no further piece of it
            call.name += name
        call.id = call.id or part.id or ""
        call.arguments += arguments
        if call.arguments and call.name:
            call.has_arguments = True
            yield call.piece()

    def end(self) -> Iterator[ToolPiece]:
        """What is still held back; raises UpstreamFault for a call without a name."""
        yield from self._named()
        for call in self._calls:
            if not call.has_arguments:
                call.arguments = "{}"
                yield call.piece()

    def _named(self) -> Iterator[ToolPiece]:
        for call in self._calls:
            if not call.name:
                raise nonsense("The upstream sent a tool call without a name.")
            if not call.is_named:
                yield call.piece()

    def _find(self, part: ToolCallPart, name: str) -> _Call | None:
        """The call that a piece belongs to; None: it begins another."""
        known = [call for call in self._calls if part.index is None or call.index == part.index]
        last = known[-1] if known else None
        if part.id:
            named = [call for call in known if call.id == part.id]
            if named:
                return named[-1]
            # some servers make up an id for every piece, or give it late: only a name begins a call
            return None if name and last is not None and (last.id or last.is_named) else last
        if name and last is not None and (last.is_named or last.arguments):
            is_repeated = part.index is not None and name == last.name
            return last if is_repeated else None
        return last


def _text(arguments: str | dict[str, Any] | None) -> str:
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return msgspec.json.encode(arguments).decode()
