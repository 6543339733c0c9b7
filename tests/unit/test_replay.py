"""A replay at speed: nothing before its time, and nothing later than it must be."""

from __future__ import annotations

import asyncio

import pytest

from formats.sse import Tail as Entries
from ingress.framing import SSE
from ingress.replay import parse_speed, replay
from ingress.tails import Tail
from schemas.errors import InvalidRequest, StreamDiverged
from schemas.events import Accepted, Completed, Entry, EntryId, LogEvent, Queued, Text, Usage
from schemas.ids import new_response_id
from schemas.requests import GenerationRequest
from tests.waiting import until

LATE_S = 1.0
"""How late a busy machine may be."""


def tail_of(*events: LogEvent) -> Tail:
    response_id = new_response_id()
    request = GenerationRequest(model="m")
    accepted = Accepted(t=0, id=response_id, tenant="a", format="chat", at_ms=1, request=request)
    every = [accepted, Queued(t=0, lane="interactive"), *events]
    return Tail(response_id, [Entry(EntryId(min(i // 2, 1), i + 1), event) for i, event in enumerate(every)])


def texts(*times_ms: int) -> list[LogEvent]:
    return [Text(t=t, delta=str(t)) for t in times_ms]


def encode(tail: Entries, index: int) -> bytes:
    return b"%d " % tail[index].event.t


class Viewer:
    """A client: what was written to it, and when, in seconds."""

    def __init__(self, tail: Tail, start: int = 0, speed: float = 1.0) -> None:
        self.draining = asyncio.Event()
        self.found: list[tuple[float, str]] = []
        self._stream = replay(tail, encode, start, self.draining, SSE, speed=speed)
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        now = asyncio.get_running_loop().time
        began = now()
        async for chunk in self._stream:
            self.found.append((now() - began, chunk.decode()))

    @property
    def chunks(self) -> list[str]:
        return [chunk for _, chunk in self.found]

    async def end(self) -> list[str]:
        await asyncio.wait_for(self._task, 10)
        return self.chunks


@pytest.mark.parametrize("speed", [1, 4, 0.5])
async def test_each_event_comes_at_its_time_and_those_of_one_time_in_one_write(speed: float) -> None:
    tail = tail_of(*texts(100, 100, 200, 300), Completed(t=300, usage=Usage()))
    viewer = Viewer(tail, speed=speed)
    assert await viewer.end() == ["0 0 ", "100 100 ", "200 ", "300 300 ", "data: [DONE]\n\n"]
    for (came, _), due in zip(viewer.found, (0, 0.1, 0.2, 0.3, 0.3), strict=True):
        assert due / speed <= came < due / speed + LATE_S


async def test_from_a_cursor_on_the_clock_starts_with_the_first_event() -> None:
    tail = tail_of(*texts(5000, 5100), Completed(t=5200, usage=Usage()))
    viewer = Viewer(tail, start=2)
    assert await viewer.end() == ["5000 ", "5100 ", "5200 ", "data: [DONE]\n\n"]
    assert 0.2 <= viewer.found[-1][0] < 0.2 + LATE_S


async def test_what_comes_faster_than_it_can_be_written_is_gathered() -> None:
    tail = tail_of(*texts(*range(1000)), Completed(t=1000, usage=Usage()))
    chunks = await Viewer(tail, speed=20).end()
    assert "".join(chunks).split()[2:-2] == [str(t) for t in range(1001)]
    assert len(chunks) < 20


async def test_behind_what_is_past_a_viewer_goes_on_live() -> None:
    tail = tail_of(*texts(100, 200))
    viewer = Viewer(tail)
    await until(lambda: viewer.chunks == ["0 0 ", "100 "], what="the first text")
    tail.add([Entry(EntryId(1, 5), Text(t=300, delta="x"))])
    tail.wake()
    await until(lambda: viewer.chunks == ["0 0 ", "100 ", "200 ", "300 "], what="what is past")
    assert 0.3 <= viewer.found[-1][0] < 0.3 + LATE_S
    for number, event in enumerate((*texts(9000), Completed(t=99000, usage=Usage())), start=6):
        tail.add([Entry(EntryId(1, number), event)])
    tail.wake()
    assert (await viewer.end())[4:] == ["9000 99000 data: [DONE]\n\n"]


async def test_a_gateway_that_drains_and_a_stream_that_diverges_do_not_wait_for_what_is_due() -> None:
    for has_drained in (True, False):
        tail = tail_of(*texts(60_000), Completed(t=60_000, usage=Usage()))
        viewer = Viewer(tail)
        await until(lambda: viewer.chunks == ["0 0 "], what="what is due")  # noqa: B023
        if has_drained:
            viewer.draining.set()
            tail.wake()
        else:
            tail.fail(StreamDiverged())
        _, last = await viewer.end()
        assert ("this gateway drains" in last) is has_drained
        assert ("stream_diverged" in last) is not has_drained


async def test_a_client_that_leaves_ends_the_wait() -> None:
    tail = tail_of(*texts(60_000))
    stream = replay(tail, encode, 0, asyncio.Event(), SSE, speed=1)
    assert await anext(stream) == b"0 0 "
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(stream), 0.02)


@pytest.mark.parametrize(("text", "speed"), [("1", 1.0), ("0.5", 0.5), ("0.1", 0.1), ("1000", 1000.0), ("2.50", 2.5)])
def test_a_speed_is_a_number(text: str, speed: float) -> None:
    assert parse_speed(text) == speed


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "0.0999", "1001", "1e1", "nan", "inf", "x", "1,5", " 1", "1\n", "٣", ".5"]
)
def test_what_is_no_speed_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_speed(text)
    assert caught.value.param == "speed"
