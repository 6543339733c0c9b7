"""What one client saw of one response."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from benchmarks.chaos.asks import Ask
from benchmarks.chaos.frames import Frames


@dataclass
class Segment:
    """One connection over which a part of a stream came."""

    gateway: int
    """Its port."""
    opened_at: float
    first_frame: int
    """How many events were there before."""
    closed_at: float = 0.0
    """0 while it is open."""
    was_cut: bool = False

    def was_open_at(self, moment: float) -> bool:
        return self.opened_at <= moment and (not self.closed_at or self.closed_at >= moment)


@dataclass(eq=False)
class Record:
    """A response that was accepted: the client has got a 2xx with its id."""

    ask: Ask
    id: str
    """As the archive knows it: `resp_…`."""
    accepted_at: float = field(default_factory=time.monotonic)
    ended_at: float = 0.0
    """0 while it runs."""
    frames: Frames = field(default_factory=Frames)
    segments: list[Segment] = field(default_factory=list)
    answer: bytes = b""
    """The object of a response that was not streamed."""
    is_late: bool = False
    """It was not finished within the client's patience."""
    refusal: str = ""
    """What a gateway answered instead of going on."""

    @property
    def reconnects(self) -> int:
        return sum(segment.was_cut for segment in self.segments)

    def end(self) -> None:
        self.ended_at = time.monotonic()
        self.frames.pack()
