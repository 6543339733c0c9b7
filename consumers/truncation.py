"""Input that does not fit the context: its oldest messages are left out (`truncation: "auto"`).

An engine counts before it generates, so a try that fails costs little, and says how much is too much. How many
messages were left out stands in the log with the first item of the output (`ItemAdded.dropped`): whoever goes on
with that output MUST leave out the same ones, for else it would be the continuation of another prompt.

Left out together are a message of the user and everything up to the next one: many templates want the two to take
turns. Behind the last one, which always stays, it is a message of the assistant with the results of its calls.
Instructions stay, and what the model is to answer.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Sequence
from itertools import accumulate

import msgspec

from engine.base import Delta, Engine, Generation
from schemas.errors import ContextTooLong
from schemas.events import ItemAdded, LogEvent
from schemas.requests import GenerationRequest, ImageContent, Message

log = logging.getLogger(__name__)

_AIMS = (1.05, 1.01, 1.0, 0.95, 0.8)
"""What to keep of the size that should fit, try by try: a try that fails costs little, and what goes is lost."""
_MAX_TRIES = len(_AIMS) + 3
"""The first with everything, then these, one without all that may go, and one that takes any room for the answer."""
_IMAGE_SIZE = 2_000
_MESSAGE_SIZE = 16
"""In characters: about what templates make of an image, and put around a message."""


class FittingGeneration:
    """One generation, with as much of its input as fits."""

    def __init__(self, engine: Engine, generation: Generation, dropped: int | None) -> None:
        """`dropped`: so many messages were left out for the output that is there; None: there is none."""
        self._engine = engine
        self._generation = msgspec.structs.replace(generation, request=generation.request.for_engine())
        self._is_decided = dropped is not None
        self.dropped = dropped or 0

    def deltas(self) -> AsyncGenerator[Delta, None]:
        """As `Engine.generate`. Raises ContextTooLong where even the least does not fit."""
        generation = self._generation
        if self._is_decided or generation.request.truncation == "disabled":
            return self._engine.generate(self._with(self.dropped) if self.dropped else generation)
        return self._fitted()

    def marked(self, events: list[LogEvent]) -> list[LogEvent]:
        """The events of the first output, with what it was generated without."""
        if not self.dropped:
            return events
        return [
            msgspec.structs.replace(event, dropped=self.dropped)
            if isinstance(event, ItemAdded) and event.output_index == 0
            else event
            for event in events
        ]

    def _with(self, dropped: int, least_room: int = 1) -> Generation:
        request = self._generation.request
        left = msgspec.structs.replace(request, messages=without_oldest(request.messages, dropped))
        return msgspec.structs.replace(self._generation, request=left, least_room=least_room)

    async def _fitted(self) -> AsyncGenerator[Delta, None]:
        search = _Search(self._generation.request)
        while True:
            has_begun = False
            self.dropped = search.dropped
            try:
                tried = self._engine.generate(self._with(search.dropped, search.least_room))
                async with contextlib.aclosing(tried) as deltas:
                    async for delta in deltas:
                        if not has_begun and (delta.has_piece or delta.finish_reason):
                            has_begun = True
                            self._tell()
                        yield delta
                return
            except ContextTooLong as exc:
                if has_begun or not search.goes_on(exc, self._engine.context_length):
                    raise

    def _tell(self) -> None:
        if self.dropped:
            count = len(self._generation.request.messages)
            log.info("input_truncated id=%s dropped=%d of=%d", self._generation.id, self.dropped, count)


class _Search:
    """How many messages to leave out next: by what the engine counted, else half of what is left."""

    def __init__(self, request: GenerationRequest) -> None:
        self._request = request
        units = _units(request.messages)
        self._cuts = [0, *accumulate(len(unit) for unit in units)]
        gone = accumulate(sum(_size(request.messages[i]) for i in unit) for unit in units)
        whole = _fixed_size(request) + sum(map(_size, request.messages))
        self._sizes = [whole, *(whole - size for size in gone)]
        self._place = 0
        self._tries = 1
        self.least_room = 1

    @property
    def dropped(self) -> int:
        return self._cuts[self._place]

    def goes_on(self, error: ContextTooLong, context: int) -> bool:
        """Decide on another try; False: there is none that could go well."""
        last = len(self._cuts) - 1
        if last == 0 or (self._place == last and self.least_room == 1):
            return False
        self._tries += 1
        if self._place == last or self._tries >= _MAX_TRIES:
            self._place, self.least_room = last, 1
            return True
        self.least_room = self._room(error.context or context)
        aims = _AIMS[self._tries - 2 :]
        goal = self._goal(error, aims[0]) if aims else 0.0
        places = range(self._place + 1, last)
        self._place = next((place for place in places if self._sizes[place] <= goal), last)
        return True

    def _room(self, context: int) -> int:
        """For the answer: what is asked for, at most a quarter of the context."""
        quarter = context // 4
        return max(1, min(self._request.max_output_tokens or quarter, quarter))

    def _goal(self, error: ContextTooLong, aim: float) -> float:
        """The size to come down to."""
        size = self._sizes[self._place]
        return aim * size * (error.context - self.least_room) / error.tokens if error.tokens else size / 2


def without_oldest(messages: Sequence[Message], count: int) -> list[Message]:
    """Without the `count` messages that are left out first."""
    order = [index for unit in _units(messages) for index in unit]
    gone = set(order[:count])
    return [message for index, message in enumerate(messages) if index not in gone]


def _units(messages: Sequence[Message]) -> list[list[int]]:
    """Places of messages that are left out together, the oldest first."""
    last_user = max((i for i, message in enumerate(messages) if message.role == "user"), default=-1)
    units: list[list[int]] = []
    unit_of_call: dict[str, list[int]] = {}
    for index, message in enumerate(messages):
        if message.role in ("system", "developer") or index == last_user:
            continue
        unit = unit_of_call.get(message.tool_call_id)
        if unit is None:
            begins = message.role == "user" or (index > last_user and message.role == "assistant")
            if begins or not units or units[-1][-1] < last_user < index:
                units.append([])
            unit = units[-1]
        unit.append(index)
        unit_of_call |= {call.id: unit for call in message.tool_calls}
    return [unit for unit in units if unit[-1] != len(messages) - 1]


def _size(message: Message) -> int:
    """About how long it is, in characters."""
    images = sum(isinstance(part, ImageContent) for part in message.parts)
    calls = sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
    return _MESSAGE_SIZE + len(message.text) + calls + images * _IMAGE_SIZE


def _fixed_size(request: GenerationRequest) -> int:
    """Of what is never left out."""
    return len(request.instructions or "") + len(msgspec.json.encode(request.tools))
