"""What a synthetic response consists of, token by token: known from the request alone, so any worker can go on."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.base import Delta, FinishReason, ToolPiece
from engine.synthetic.faults import Behaviour
from engine.synthetic.least_json import least_value
from schemas.errors import InvalidRequest
from schemas.logprobs import LikelyToken, TokenLogprob
from schemas.requests import GenerationRequest
from schemas.tools import Tool, ToolName

DEFAULT_LENGTH = 64
"""Tokens of text where the request sets no maximum."""
_PIECE = 4
"""Characters of a token of JSON."""
_LOGPROB = -0.5
_MOST_WITH_STOPS = 50_000
"""The text is searched before it is begun: longer ones would hold up everybody else."""


class Script:
    """Token i is `piece(i)`: first ` r0 r1 …` of reasoning, then calls, JSON, or ` t0 t1 …`."""

    def __init__(self, request: GenerationRequest, behaviour: Behaviour, room: int) -> None:
        """`room`: tokens that the context leaves. Raises InvalidRequest for a schema that is too hard."""
        self._reasoning = behaviour.reasoning
        self._top = request.top_logprobs if request.logprobs else None
        self._fixed = _fixed_pieces(request, behaviour)
        length = self._reasoning + (DEFAULT_LENGTH if self._fixed is None else len(self._fixed))
        limit = min(room, request.max_output_tokens or room)
        ends_by_itself = self._fixed is not None or not request.max_output_tokens
        self.total = min(length, limit) if ends_by_itself else limit
        self.reason: FinishReason = "stop" if ends_by_itself and length <= limit else "length"
        self.rest = Delta()
        """What of the last token comes with the end, because a stop string cut it."""
        if request.stop:
            self._cut(request.stop)

    def piece(self, index: int) -> Delta:
        if index < self._reasoning:
            return Delta(reasoning=f" r{index}", tokens=(index,))
        place = index - self._reasoning
        delta = Delta(text=f" t{place}") if self._fixed is None else self._fixed[place]
        logprobs = () if self._top is None or not delta.text else (_logprob(delta.text, self._top),)
        return Delta(text=delta.text, tool=delta.tool, tokens=(index,), logprobs=logprobs)

    def reasoning_tokens(self, first: int) -> int:
        """Of those from `first` on."""
        return max(0, min(self.total, self._reasoning) - first)

    def _cut(self, stops: list[str]) -> None:
        if self.total > _MOST_WITH_STOPS:
            raise InvalidRequest(f"With stop strings the synthetic engine makes up to {_MOST_WITH_STOPS} tokens.")
        text = "".join(self.piece(index).text for index in range(self._reasoning, self.total))
        ends = [end for end in (text.find(stop) for stop in stops) if end >= 0]
        if not ends:
            return
        self.reason = "stop"
        left = min(ends)
        for index in range(self._reasoning, self.total):
            piece = self.piece(index)
            if len(piece.text) > left:
                self.total = index
                self.rest = msgspec.structs.replace(piece, text=piece.text[:left])
                return
            left -= len(piece.text)


def _fixed_pieces(request: GenerationRequest, behaviour: Behaviour) -> list[Delta] | None:
    """Calls or JSON; None: text."""
    tools = _called_tools(request, behaviour.tools)
    if tools:
        return [piece for index, tool in enumerate(tools) for piece in _call(index, tool)]
    if request.output_format is not None:
        value = least_value(request.output_format.schema) if request.output_format.schema is not None else {}
        return [Delta(text=part) for part in _parts(value)]
    return None


def _called_tools(request: GenerationRequest, count: int) -> list[Tool]:
    choice = request.tool_choice
    if not request.tools or choice == "none":
        return []
    if isinstance(choice, ToolName):
        return [next(tool for tool in request.tools if tool.name == choice.name)] * max(1, count)
    if choice == "required":
        count = max(1, count)
    return [request.tools[index % len(request.tools)] for index in range(count)]


def _call(index: int, tool: Tool) -> list[Delta]:
    try:
        arguments = least_value(tool.parameters) if tool.parameters is not None else {}
    except InvalidRequest:
        arguments = {}  # only a strict tool must be called as its schema says
        if tool.strict:
            raise
    pieces = [ToolPiece(index, name=tool.name), *(ToolPiece(index, arguments=part) for part in _parts(arguments))]
    return [Delta(tool=piece) for piece in pieces]


def _parts(value: Any) -> list[str]:
    text = msgspec.json.encode(value).decode()
    return [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]


def _logprob(text: str, top: int) -> TokenLogprob:
    others = tuple(LikelyToken(f" x{rank}", _LOGPROB - rank) for rank in range(1, top))
    likely = (LikelyToken(text, _LOGPROB), *others) if top else ()
    return TokenLogprob(text, _LOGPROB, top=likely)
