"""Ending a response from outside its worker: a takeover that writes the end and nothing else.

It needs no worker to be alive, takes effect at once and happens once; a worker that is
still generating is refused at its next write.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from formats.structure import closing_events
from formats.transcript import Transcript, transcript_of
from schemas.errors import BrokerError
from schemas.events import Cancelled, Entry, EntryId, ErrorDetail, Failed, Fence, LogEvent, Terminal, Usage
from schemas.ids import ResponseId
from schemas.requests import FinishedEntry
from streams.control import ControlStream
from streams.finished import FinishedStream
from streams.logs import ResponseLogs
from streams.retry import retry_harmless

_TRIES = 20
"""Against a worker that goes on writing; each try needs about a millisecond without a flush."""

MakeTerminal = Callable[[int, Usage], Terminal]


def failure(code: str, message: str) -> MakeTerminal:
    """An end with `failed`."""
    return lambda t, usage: Failed(t=t, error=ErrorDetail(code, message), usage=usage)


def cancellation() -> MakeTerminal:
    """An end with `cancelled`."""
    return lambda t, usage: Cancelled(t=t, usage=usage)


class Ender:
    """Ends responses in the name of one process."""

    def __init__(
        self,
        logs: ResponseLogs,
        finished: FinishedStream,
        *,
        name: str,
        boot: str,
        control: ControlStream | None = None,
    ) -> None:
        """With `control` the workers are told; without, they notice at their next write."""
        self._logs = logs
        self._finished = finished
        self._name = name
        self._boot = boot
        self._control = control

    async def end(self, response_id: ResponseId, make_terminal: MakeTerminal) -> Transcript:
        """End it if nobody has; the transcript tells how it ended. Raises LogGone, BrokerError."""
        transcript = transcript_of(await self._logs.read(response_id))
        was_ended = transcript.terminal is not None
        for _ in range(_TRIES):
            if transcript.terminal is not None:
                break
            entries = self._closing_entries(transcript, make_terminal)
            fence = EntryId(transcript.last_id.attempt + 1, 0)
            event = Fence(t=entries[-1].event.t, consumer=self._name, boot=self._boot)
            after = transcript.last_id
            await retry_harmless(partial(self._logs.end, response_id, after, (fence, event), entries))
            for entry in await self._logs.read(response_id, after):
                transcript.add(entry)
        if transcript.terminal is None:
            raise BrokerError(f"{response_id} could not be ended: its worker kept writing")
        if self._control is not None and not was_ended:
            await self._control.tell_ended(response_id)
        status = str(transcript.status)
        await retry_harmless(lambda: self._finished.send(FinishedEntry(id=response_id, status=status)))
        return transcript

    def _closing_entries(self, transcript: Transcript, make_terminal: MakeTerminal) -> list[Entry]:
        t = event_time(transcript)
        terminal = make_terminal(t, transcript.usage)
        events: list[LogEvent] = [*closing_events(transcript, t, complete=False), terminal]
        attempt = transcript.last_id.attempt + 1
        return [Entry(EntryId(attempt, transcript.next_number + i), event) for i, event in enumerate(events)]


def event_time(transcript: Transcript) -> int:
    """Milliseconds since acceptance, never below the last entry's."""
    assert transcript.accepted is not None
    return max(transcript.last_t, time.time_ns() // 1_000_000 - transcript.accepted.at_ms)
