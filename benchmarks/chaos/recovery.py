"""How long a stream stood still: from a kill to the next new token at the client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.chaos.faults import Action, Fault, Target
from benchmarks.chaos.frames import attempt_of, is_text
from benchmarks.chaos.record import Record
from schemas.archived import StoredEntry
from schemas.events import Fence
from streams.logs import decode_entry


@dataclass(frozen=True)
class Spread:
    """Seconds over all affected streams."""

    faults: int
    """Kills that were measured."""
    streams: int
    p50: float
    p95: float
    longest: float

    @classmethod
    def of(cls, faults: int, seconds: Sequence[float]) -> Spread:
        ordered = sorted(seconds) or [0.0]
        p50, p95 = (ordered[min(len(ordered) - 1, int(len(ordered) * q))] for q in (0.5, 0.95))
        return cls(faults, len(seconds), p50, p95, ordered[-1])


@dataclass(frozen=True)
class _Stream:
    """A response that was read as a stream: when its new tokens came, and by which attempt."""

    record: Record
    texts: list[tuple[float, int]]
    owners: dict[str, int]
    """Consumer → its last attempt, from the fences of the log."""
    last_attempt: int

    def next_of_same_attempt(self, before: float, after: float) -> float | None:
        """As `next_text`, but only where the worker did not change meanwhile."""
        attempt = next((by for at, by in reversed(self.texts) if at <= before), 0)
        return next((at if by == attempt else None for at, by in self.texts if at > after), None)

    def next_text(self, moment: float, attempt: int = 0) -> float | None:
        """When the first token came after a moment, of an attempt at or behind `attempt`."""
        return next((at for at, by in self.texts if at > moment and by >= attempt), None)


def measure(
    records: Iterable[Record], logs: Mapping[str, list[StoredEntry]], faults: Sequence[Fault]
) -> dict[Target, Spread]:
    """By target. A worker's kill is measured where no fault of the broker disturbed it."""
    streams = [
        _stream(record, logs[record.id]) for record in records if record.ask.kind.is_stream and record.id in logs
    ]
    broken = [fault for fault in faults if fault.target in (Target.BROKER, Target.PRIMARY)]
    how: dict[Target, Callable[[Fault, _Stream], float | None]] = {
        Target.WORKER: _after_worker,
        Target.GATEWAY: _after_gateway,
        Target.BROKER: _after_broker,
        Target.PRIMARY: _after_broker,
    }
    found = {}
    for target, find in how.items():
        kills = [f for f in faults if f.target is target and f.action is Action.KILL and f.is_counted]
        if target in (Target.WORKER, Target.GATEWAY):
            kills = [kill for kill in kills if not _is_disturbed(kill, broken)]
        times = [(kill, list(_each(kill, streams, find))) for kill in kills]
        found[target] = Spread.of(sum(bool(t) for _, t in times), [s for _, seconds in times for s in seconds])
    return found


_TAKEN_UP_S = 0.4
"""From the moment when nobody dead holds a response to its next token, at most."""
_CALM_BEFORE_S = 6.0
"""A default lease and a bit: for so long after its return no worker claims."""


def _is_disturbed(kill: Fault, broken: Sequence[Fault]) -> bool:
    return any(b.at < kill.over_at + _TAKEN_UP_S and (b.over_at or b.at) + _CALM_BEFORE_S > kill.at for b in broken)


def _each(kill: Fault, streams: Sequence[_Stream], find: Callable[[Fault, _Stream], float | None]) -> Iterator[float]:
    for stream in streams:
        if stream.record.accepted_at < kill.at < stream.record.ended_at:
            at = find(kill, stream)
            if at is not None:
                yield at - kill.at


def _stream(record: Record, stored: list[StoredEntry]) -> _Stream:
    texts = [(at, attempt_of(f)) for at, f in zip(record.frames.times, record.frames.all(), strict=True) if is_text(f)]
    owners = {}
    last = 0
    for item in stored:
        if item.id.endswith("-0"):
            entry = decode_entry(item.id, item.event.encode())
            if isinstance(entry.event, Fence) and not entry.event.released:
                owners[entry.event.consumer] = last = entry.id.attempt
    return _Stream(record, texts, owners, last)


def _after_worker(kill: Fault, stream: _Stream) -> float | None:
    """It ran there if that worker's fence is followed by another attempt. What the dead one
    had written may still arrive, so only a token of a later attempt is a new one."""
    attempt = stream.owners.get(kill.consumer)
    if attempt is None or attempt >= stream.last_attempt:
        return None
    return stream.next_text(kill.at, attempt + 1)


def _after_gateway(kill: Fault, stream: _Stream) -> float | None:
    """The client was cut off there and has its next token from another connection. Where its worker
    died as well, it is that which it waited for."""
    for segment, following in zip(stream.record.segments, stream.record.segments[1:], strict=False):
        if segment.gateway == kill.port and segment.was_open_at(kill.at) and segment.was_cut:
            return stream.next_of_same_attempt(kill.at, max(kill.at, following.opened_at))
    return None


def _after_broker(kill: Fault, stream: _Stream) -> float | None:
    """What was under way when it died arrives at once, so only what comes after its return is new."""
    return stream.next_text(kill.over_at)
