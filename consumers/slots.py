"""Slots of one worker that its responses do not need: lent to the choices of responses that have several.

A response has one slot of its own, which the worker counts. More of its choices run at the same time only
on slots that are free and for which nobody queues: the worker lends them right after it has looked for requests
and found fewer than it has slots, and no read is under way. So it never has more generations than slots. A slot comes
back as soon as a choice ends, and is lent again only after the next look: requests are not held up for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class SpareSlots:
    """Of one worker."""

    def __init__(self, returned: Callable[[], None]) -> None:
        """`returned` is called when a slot came back."""
        self.lent = 0
        self._responses: dict[ResponseSlots, None] = {}
        self._returned = returned

    @property
    def are_wanted(self) -> bool:
        return any(response.wanted for response in self._responses)

    def open(self, choices: int) -> ResponseSlots:
        """The slots of a response with so many choices; `close` it in the end."""
        response = ResponseSlots(self, choices)
        if choices > 1:
            self._responses[response] = None
        return response

    def lend(self, free: int) -> None:
        """Up to so many, one to each response in turn."""
        while free > 0 and (wanting := [response for response in self._responses if response.wanted]):
            for response in wanting[:free]:
                response.lend()
                self.lent += 1
            free -= len(wanting)

    def give_back(self) -> None:
        """One of those that were lent."""
        self.lent -= 1
        self._returned()

    def forget(self, response: ResponseSlots) -> None:
        """It wants no more."""
        self._responses.pop(response, None)


class ResponseSlots:
    """One slot of its own, and those that it has borrowed."""

    def __init__(self, spare: SpareSlots, choices: int) -> None:
        self._spare = spare
        self._waiting = choices
        self._running = 0
        self._borrowed = 0
        self._changed = asyncio.Event()

    @property
    def _idle(self) -> int:
        return 1 + self._borrowed - self._running

    @property
    def wanted(self) -> int:
        """Choices that wait and have no slot."""
        return max(0, self._waiting - self._idle)

    def lend(self) -> None:
        """Here is one more."""
        self._borrowed += 1
        self._changed.set()

    def expect(self, choices: int) -> None:
        """So many choices wait for a slot."""
        self._waiting = choices
        self._return_surplus()

    async def take(self) -> None:
        """Wait for a slot for the next choice; `leave` it in the end."""
        while self._idle <= 0:
            self._changed.clear()
            await self._changed.wait()
        self._running += 1
        self._waiting -= 1

    def leave(self) -> None:
        """A choice is over: its slot goes back, or if nothing is borrowed, to the next choice."""
        self._running -= 1
        if self._borrowed:
            self._return_one()
        self._return_surplus()
        self._changed.set()

    def close(self) -> None:
        """The response is over here."""
        self._waiting = self._running = 0
        while self._borrowed:
            self._return_one()
        self._spare.forget(self)

    def _return_surplus(self) -> None:
        while self._borrowed and self._idle > self._waiting:
            self._return_one()

    def _return_one(self) -> None:
        self._borrowed -= 1
        self._spare.give_back()
