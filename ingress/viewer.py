"""Viewers: one client each, reading a tail as a stream or waiting for its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

from formats.sse import Encode
from ingress import metrics
from ingress.answer_headers import answer_headers
from ingress.framing import SSE, BrokenOff, Framing
from ingress.gateway import Gateway
from ingress.tails import Tail
from schemas.errors import ClientLeft, DeadlineExceeded, GatewayDrains
from schemas.events import Text

log = logging.getLogger(__name__)

MAX_ENTRIES_PER_WRITE = 512
_LAST_WORDS_S = 2.0
"""What the library leaves a stream when the server stops; ours end at once."""
_PING = b": ping\n"
_DRAIN_WAIT_S = 3.0
"""For answers that are not streamed: a little longer, and they need no second request."""
_AFTER_DEADLINE_S = 30.0
"""A gateway ends a late response; this is for one that can not be ended."""


Show = Callable[[Tail, Encode, int, asyncio.Event, Framing], AsyncIterator[bytes]]
"""Tail, encoder, index of the first entry, the event that this gateway drains, framing → what is written."""


async def follow(
    tail: Tail, encode: Encode, start: int, draining: asyncio.Event, framing: Framing
) -> AsyncIterator[bytes]:
    """What is ready at once, then what comes. Raises BrokenOff."""
    index = start
    while True:
        end = min(len(tail.entries), index + MAX_ENTRIES_PER_WRITE)
        chunk = b"".join([encode(tail.entries, i) for i in range(index, end)])
        _note_first_text(tail, index, end)
        index = end
        is_at_end = index == len(tail.entries) and tail.is_over
        if is_at_end or draining.is_set():
            words = framing.last_words(tail) if is_at_end else framing.drains
            if last := chunk + (words or b""):
                yield last
            if words is None:
                raise BrokenOff
            return
        if chunk:
            yield chunk
        await tail.wait_beyond(index)


class StreamAnswer(EventSourceResponse):
    """A stream from a tail. What is ready goes out in one write, each SSE event whole, LF line ends."""

    def __init__(
        self,
        gateway: Gateway,
        tail: Tail,
        encode: Encode,
        start: int,
        *,
        headers: dict[str, str],
        framing: Framing = SSE,
        show: Show = follow,
    ) -> None:
        """Releases the tail when it was sent. `headers`: beside those that name the response."""
        settings = gateway.settings
        self._gateway = gateway
        self._tail = tail
        super().__init__(
            show(tail, encode, start, gateway.viewers.draining, framing),
            sep="\n",
            shutdown_grace_period=_LAST_WORDS_S,
            ping=settings.heartbeat_s if framing.has_heartbeat else 0,
            ping_message_factory=_ping,
            send_timeout=settings.send_timeout_s,
            media_type=framing.media_type,
            headers=answer_headers(gateway, tail) | framing.headers | headers,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] == "HEAD":  # no event is shown: nobody views, so nobody leaves
                await super().__call__(scope, receive, send)
                return
            with self._gateway.viewers.viewing(self._tail):
                await self.prepare(receive)
                await super().__call__(scope, receive, send)
        except BrokenOff:
            log.info("broken_off id=%s", self._tail.id)  # the server closes what was not finished
        finally:
            self._gateway.tails.release(self._tail)

    async def prepare(self, receive: Receive) -> None:
        """What must come before the status is sent. May raise an OpenChatError, which is the answer then."""


def _ping() -> Any:
    """A comment, which keeps the connection open. The library takes bytes; its annotation does not say so."""
    return _PING


def _note_first_text(tail: Tail, index: int, end: int) -> None:
    """Of what was accepted here: others come later, and to a part of it. What a fork copied is not generated."""
    if tail.has_shown_text or not tail.is_accepted_here:
        return
    if any(isinstance(entry.event, Text) and entry.id.attempt for entry in tail.entries[index:end]):
        tail.has_shown_text = True
        accepted = tail.accepted
        metrics.FIRST_TEXT.labels(accepted.request.model).observe(max(0.0, time.time() - accepted.at_ms / 1000))


async def wait_for_end(gateway: Gateway, tail: Tail, receive: Receive) -> None:
    """Until the response has ended. Raises as `wait_for`."""
    with gateway.viewers.viewing(tail):
        await wait_for(gateway, tail, receive, lambda: False)


async def wait_for(gateway: Gateway, tail: Tail, receive: Receive, has_come: Callable[[], bool]) -> None:
    """Until something has come, or the response has ended.

    Raises the tail's error, DeadlineExceeded, ClientLeft, or GatewayDrains.
    """
    ways = (_until(tail, has_come), _until_left(receive), _until_drained(gateway.viewers.draining))
    waiting = [asyncio.create_task(way) for way in ways]
    try:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _until_left(receive: Receive) -> None:
    """Raises ClientLeft when the client hangs up; its body was read before."""
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientLeft


async def _until_drained(draining: asyncio.Event) -> None:
    """Raises GatewayDrains when this gateway can wait no longer."""
    await draining.wait()
    await asyncio.sleep(_DRAIN_WAIT_S)
    raise GatewayDrains


async def _until(tail: Tail, has_come: Callable[[], bool]) -> None:
    deadline_ms = tail.accepted.request.deadline_at_ms
    limit_s = max(0.0, deadline_ms / 1000 - time.time()) + _AFTER_DEADLINE_S if deadline_ms else None
    try:
        async with asyncio.timeout(limit_s):
            while not (tail.is_over or has_come()):
                await tail.wait_beyond(len(tail.entries))
    except TimeoutError:
        raise DeadlineExceeded from None
    if tail.error is not None:
        raise tail.error
