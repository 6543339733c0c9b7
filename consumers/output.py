"""What one attempt adds to its log."""

from __future__ import annotations

from collections.abc import Sequence

from consumers.isolation import Place
from consumers.stall import StallWatch
from formats.transcript import Transcript
from responses.end import event_time
from schemas.events import LogEvent
from streams.writer import LogAppender


class Output:
    """Events go to the log, and at once into the transcript, which so says what the log will."""

    def __init__(self, appender: LogAppender, transcript: Transcript, place: Place, stall: StallWatch) -> None:
        self.appender = appender
        self.transcript = transcript
        self._place = place
        self._stall = stall

    def write(self, events: Sequence[LogEvent], *, urgent: bool) -> None:
        for event in events:
            self.appender.append(event, urgent=urgent)
            self.transcript.note(event)

    async def room(self) -> None:
        """Wait while too much is unflushed. Raises Fenced or LogGone once the log is lost."""
        if self.appender.is_full:
            with self._stall.not_waiting():
                await self.appender.room()
        self.appender.raise_error()

    def leave_place(self) -> None:
        """There is output: others may begin beside this attempt."""
        self._place.leave()

    def now_ms(self) -> int:
        """Event time: since acceptance, never below the log's last."""
        return event_time(self.transcript)
