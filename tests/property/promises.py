"""What must hold at any time, and at the end."""

from __future__ import annotations

from formats.structure import closing_events
from formats.transcript import Transcript
from ingress.cursor import Cursor
from ingress.tails import Tail
from schemas.errors import Fenced, InvalidCursor, ResponseNotFound, StreamDiverged
from schemas.events import TERMINAL, Cancelled, Fence, LogEvent, Usage
from schemas.ids import ResponseId
from streams.keys import bus_key, log_key
from streams.logs import RawEntry, decode_entry
from streams.writer import LogAppender
from tests.property.actors import Worker
from tests.property.world import World, is_fence

_SEALED = b"18446744073709551615-0"


class Promises:
    """Reads the broker of a world and compares it with what its actors know."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def check(self) -> None:
        """After every step."""
        for response_id in self.world.ids:
            entries = await self.world.logs.read_raw(response_id)
            exists = await self.world.logs.exists(response_id)
            assert exists == (response_id in self.world.existing), "only accept makes a log"
            transcript = self._check_log(response_id, entries)
            self.world.sealed.discard(response_id)
            if transcript.terminal is not None:
                self.world.sealed.add(response_id)
                info = await self.world.broker.commands.xinfo_stream(log_key(response_id))
                assert info["last-generated-id"] == _SEALED, "every end seals"
            if entries:
                self._check_told(response_id, entries)
        await self._check_bus()
        for reader in self.world.readers:
            await self._check_shown(reader.tail)

    def _check_log(self, response_id: ResponseId, entries: list[RawEntry]) -> Transcript:
        """Sequences without hole or repeat (`Transcript.add`), each written by the owner of its fence, one end."""
        transcript = Transcript()
        closing: list[LogEvent] = []
        for raw in entries:
            entry = decode_entry(*raw)
            assert transcript.terminal is None, f"{entry.id} stands behind the end"
            assert entry.event.t >= transcript.last_t, "time falls"
            if isinstance(entry.event, Fence) and not self.world.is_of_worker(raw):
                closing = _end_of(transcript, entry.event.t)
            elif closing:
                assert entry.event == closing.pop(0), "an end does not fit what stands before it"
            elif entry.id.attempt > 0:
                boot = entry.event.boot if isinstance(entry.event, Fence) else _boot_of(transcript)
                assert (response_id, boot, *raw) in self.world.written, f"{entry.id} is not of the owner {boot}"
            if entry.id.attempt > 0 and not entry.id.is_fence:
                assert entry.id.attempt == transcript.last_id.attempt, f"{entry.id} has no fence"
            transcript.add(entry)
        assert not closing, "an end is cut off"
        return transcript

    def _check_told(self, response_id: ResponseId, entries: list[RawEntry]) -> None:
        """What writers were told is true; after a failover: once they have written again and if they still own it."""
        last_attempt = decode_entry(*entries[-1]).id.attempt
        for worker in self.world.everybody:
            has_repaired = worker.wire.call is None and worker.wire.answered_epoch == self.world.epoch
            for attempt in worker.attempts:
                if attempt.response_id != response_id:
                    continue
                if self.world.epoch == 0:
                    for appender in attempt.appenders:
                        self._check_kept(worker, appender, entries)
                        self._check_fenced(worker, appender, entries)
                elif attempt.owns and attempt.appender.attempt == last_attempt and has_repaired:
                    self._check_kept(worker, attempt.appender, entries)

    def _check_kept(self, worker: Worker, appender: LogAppender, entries: list[RawEntry]) -> None:
        missing = [entry[0] for entry in appender.kept if entry not in entries]
        assert not missing, f"{worker.boot} was told that these are written: {missing}"

    def _check_fenced(self, worker: Worker, appender: LogAppender, entries: list[RawEntry]) -> None:
        if not isinstance(appender.error, Fenced):
            return
        last = decode_entry(*entries[-1])
        is_ended = isinstance(last.event, TERMINAL)
        is_others = not any(_is_fence_of(entry, worker.boot, appender.attempt) for entry in entries)
        assert last.id.attempt > appender.attempt or is_ended or is_others, f"{worker.boot} is told that it is fenced"

    async def _check_bus(self) -> None:
        """What is in a log is on the bus: once and in order, but for what was put back."""
        rows = await self.world.broker.commands.xrange(bus_key())
        for response_id in self.world.existing:
            prefix = f"{response_id} ".encode()
            on_bus = [
                (field.removeprefix(prefix).decode(), raw)
                for _, fields in rows
                for field, raw in fields.items()
                if field.startswith(prefix)
            ]
            entries = await self.world.logs.read_raw(response_id)
            # a fence in a flush that is repeated after the log came to be is in the log alone; nothing follows it
            in_log = [e for e in entries if not e[0].startswith("0-") and (e in on_bus or not is_fence(e))]
            if self.world.epoch == 0:
                assert on_bus == in_log, "the bus is not the log"
            else:
                assert set(in_log) <= set(on_bus), "something is not on the bus"

    async def _check_shown(self, tail: Tail) -> None:
        """A client has seen the beginning of one log, as it is or as it was."""
        timelines = [await self.world.events(tail.id), *self.world.histories[tail.id].timelines]
        shown = tail.entries
        assert any(timeline[: len(shown)] == shown for timeline in timelines), "a mixture was shown"
        if self.world.epoch == 0 and tail.error is not None:
            assert isinstance(tail.error, ResponseNotFound), tail.error
            assert tail.id not in self.world.existing

    async def check_end(self) -> None:
        """Let what is on its way arrive and every response end; then every reader knows where it stands."""
        await self.world.end_all()
        for reader in self.world.readers:
            while await reader.poll():
                pass
            await reader.check()
        await self.check()
        assert self.world.sealed == self.world.existing, "a response has not ended"
        for reader in self.world.readers:
            await self._check_reader_at_end(reader.tail)

    async def _check_reader_at_end(self, tail: Tail) -> None:
        events = await self.world.events(tail.id)
        shown = tail.entries
        is_beginning = shown[: len(events)] == events[: len(shown)]
        if tail.error is None and not (tail.is_complete and self.world.epoch):
            assert is_beginning, "a client does not know that its stream is lost"
            assert tail.is_complete or tail.id in self.world.deleted, "a client waits for ever"
            assert self.world.epoch or shown == events or tail.id in self.world.deleted
        if not shown or tail.id not in self.world.existing:
            return
        try:
            Cursor(None, str(shown[-1].id)).start(Tail(tail.id, events))
        except (StreamDiverged, InvalidCursor):
            assert self.world.epoch
        else:
            assert is_beginning, "a lost cursor was taken"


def _is_fence_of(entry: RawEntry, boot: str, attempt: int) -> bool:
    event = decode_entry(*entry).event
    return entry[0] == f"{attempt}-0" and isinstance(event, Fence) and event.boot == boot


def _boot_of(transcript: Transcript) -> str:
    assert transcript.fence is not None, "an attempt without a fence"
    return transcript.fence.boot


def _end_of(transcript: Transcript, t: int) -> list[LogEvent]:
    usage = Usage(output_tokens=len(transcript.tokens))
    return [*closing_events(transcript, t, complete=False), Cancelled(t=t, usage=usage)]
