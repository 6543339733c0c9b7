"""Viewers: one client each, reading a tail as SSE or waiting for its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

from formats.sse import DONE, Encode, frame
from ingress import metrics
from ingress.errors import error_body
from ingress.gateway import Gateway
from ingress.tails import Tail
from schemas.errors import ClientLeft, DeadlineExceeded, GatewayDrains
from schemas.events import Text

MAX_ENTRIES_PER_WRITE = 512
_LAST_WORDS_S = 2.0
"""What the library leaves a stream when the server stops; ours end at once."""
_PING = b": ping\n"
DRAINS = b"retry: 1000\n: this gateway drains; the stream goes on at another, after the last id\n"
# Neither ends with an empty line: once it has seen an id, OpenAI's client (3.57) takes each empty line for
# the end of an event, and fails at one without data.
_DRAIN_WAIT_S = 3.0
"""For answers that are not streamed: a little longer, and they need no second request."""
_AFTER_DEADLINE_S = 30.0
"""A gateway ends a late response; this is for one that can not be ended."""


Show = Callable[[Tail, Encode, int, asyncio.Event], AsyncIterator[bytes]]
"""Tail, encoder, index of the first entry, the event that this gateway drains → what is written."""


async def follow(tail: Tail, encode: Encode, start: int, draining: asyncio.Event) -> AsyncIterator[bytes]:
    """What is ready at once, then what comes."""
    index = start
    while True:
        end = min(len(tail.entries), index + MAX_ENTRIES_PER_WRITE)
        chunk = b"".join([encode(tail.entries, i) for i in range(index, end)])
        _note_first_text(tail, index, end)
        index = end
        if index == len(tail.entries) and tail.is_over:
            yield chunk + last_words(tail)
            return
        if draining.is_set():
            yield chunk + DRAINS
            return
        if chunk:
            yield chunk
        await tail.wait_beyond(index)


class StreamAnswer(EventSourceResponse):
    """SSE from a tail. What is ready goes out in one write, each SSE event whole, LF line ends."""

    def __init__(
        self,
        gateway: Gateway,
        tail: Tail,
        encode: Encode,
        start: int,
        *,
        headers: dict[str, str],
        show: Show = follow,
    ) -> None:
        """Releases the tail when it was sent."""
        settings = gateway.settings
        self._gateway = gateway
        self._tail = tail
        super().__init__(
            show(tail, encode, start, gateway.viewers.draining),
            sep="\n",
            shutdown_grace_period=_LAST_WORDS_S,
            ping=settings.heartbeat_s,
            ping_message_factory=_ping,
            send_timeout=settings.send_timeout_s,
            headers=headers,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._gateway.viewers.viewing(self._tail):
                await super().__call__(scope, receive, send)
        finally:
            self._gateway.tails.release(self._tail)


def _ping() -> Any:
    """A comment, which keeps the connection open. The library takes bytes; its annotation does not say so."""
    return _PING


def last_words(tail: Tail) -> bytes:
    """The end of a stream whose tail is over: the error of the tail, if it has one."""
    if tail.error is None:
        return DONE
    body = {"type": "error", "code": tail.error.code, "message": tail.error.message, "param": None}
    return frame(msgspec.json.encode(body | error_body(tail.error)), event="error") + DONE


def _note_first_text(tail: Tail, index: int, end: int) -> None:
    """Of what was accepted here: others come later, and to a part of it. What a fork copied is not generated."""
    if tail.has_shown_text or not tail.is_accepted_here:
        return
    if any(isinstance(entry.event, Text) and entry.id.attempt for entry in tail.entries[index:end]):
        tail.has_shown_text = True
        accepted = tail.accepted
        metrics.FIRST_TEXT.labels(accepted.request.model).observe(max(0.0, time.time() - accepted.at_ms / 1000))


async def wait_for_end(gateway: Gateway, tail: Tail, receive: Receive) -> None:
    """Until the response has ended. Raises the tail's error, DeadlineExceeded, ClientLeft, or GatewayDrains."""
    with gateway.viewers.viewing(tail):
        ways = (_until_over(tail), _until_left(receive), _until_drained(gateway.viewers.draining))
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


async def _until_over(tail: Tail) -> None:
    deadline_ms = tail.accepted.request.deadline_at_ms
    limit_s = max(0.0, deadline_ms / 1000 - time.time()) + _AFTER_DEADLINE_S if deadline_ms else None
    try:
        async with asyncio.timeout(limit_s):
            while not tail.is_over:
                await tail.wait_beyond(len(tail.entries))
    except TimeoutError:
        raise DeadlineExceeded from None
    if tail.error is not None:
        raise tail.error
