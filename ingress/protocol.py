"""HTTP as uvicorn speaks it, with bounds that it lacks: size and time of a request's head, connections, slow readers.

What is refused here never was a request that the app could see: it is answered by hand, and the connection closed.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import socket
import struct
import termios
from array import array
from http import HTTPStatus
from typing import Any

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ingress import metrics
from ingress.errors import error_body, headers_of
from ingress.request_ids import new_request_id
from schemas.errors import BadHttp, HeadTimeout, HeadTooLarge, OpenChatError, TooManyConnections

log = logging.getLogger(__name__)

_MAX_FIELDS = 100
"""Header fields of one request."""
_FRAMING = 9
"""Bytes of chunk headers that a byte of a body may cost, and more than the smallest chunk does."""
_REQUEST_LINE = 64
"""Of a head, what is neither address nor header, and more."""
_FORGET = struct.pack("ii", 1, 0)
_OF_UPGRADES = (b"connection", b"upgrade", b"http2-settings")
_LINGER_S = 2.0
"""So long a client that was refused may go on sending: closed at once, it would lose the answer."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one connection."""

    max_head_bytes: int
    head_timeout_s: float
    """From the connection, or the first byte of a further request, to the end of its head."""
    send_timeout_s: float
    """A client that takes nothing of what is written for so long is gone."""
    max_connections: int


class GatewayProtocol(HttpToolsProtocol):
    """One connection. Pass `limits` by `functools.partial`."""

    def __init__(self, *arguments: Any, limits: Limits, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limits = limits
        self._refusal: OpenChatError | None = None
        self._is_refused = False
        self._is_in_head = False
        self._is_in_body = False
        self._head_bytes = 0
        self._fields = 0
        self._held_bytes = 0
        """Of this message, that the parser has and has not handed out."""
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()
        if len(self.connections) > self._limits.max_connections:
            self._refuse(TooManyConnections())
            self.connections.discard(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_there()
        self._stop_send_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        if not self._is_in_body:
            self._expect_head()
        self._held_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except httptools.HttpParserError:  # what is not HTTP, and what `_count` refuses
            self._refuse(self._refusal or BadHttp())
        self._held_bytes = max(0, self._held_bytes)
        if self._held_bytes > self._limits.max_head_bytes:
            self._refuse(HeadTooLarge())
        if self._is_in_head:
            self._expect_head()

    def on_message_begin(self) -> None:
        self._is_in_head, self._is_in_body = True, False
        self._head_bytes = self._fields = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            return  # it is not served like this: see `_feed_without_upgrade`
        self._head_is_there()
        self._is_in_head, self._is_in_body = False, True
        self._held_bytes -= _REQUEST_LINE
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._held_bytes -= _FRAMING * len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._is_in_body:
            return
        self._is_in_body = False
        self._held_bytes = 0
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader(self._unread())

    def resume_writing(self) -> None:
        self._stop_send_timer()
        super().resume_writing()

    def _feed(self, data: bytes) -> None:
        """Raises HttpParserError."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._feed_without_upgrade(data[upgrade.args[0] :])

    def _feed_without_upgrade(self, rest: bytes) -> None:
        """Begin the request again as if it had not offered another protocol.

        The parser takes what follows for that protocol, and so would lose the body. Java's own client offers HTTP/2
        with every request.
        """
        head = [b"%s %s HTTP/1.1" % (self.parser.get_method(), self.url)]
        head += [b"%s: %s" % (name, value) for name, value in self.headers if name not in _OF_UPGRADES]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._feed(b"\r\n".join([*head, b"", rest]))

    def _count(self, size: int) -> None:
        """Raises HeadTooLarge, which the parser makes its own."""
        self._head_bytes += size
        self._held_bytes -= size
        if self._head_bytes > self._limits.max_head_bytes:
            self._refusal = HeadTooLarge(
                f"Request line and headers are larger than {self._limits.max_head_bytes} bytes."
            )
        elif self._fields > _MAX_FIELDS:
            self._refusal = HeadTooLarge(f"There are more than {_MAX_FIELDS} headers.")
        if self._refusal is not None:
            raise self._refusal

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._limits.head_timeout_s, self._head_is_late)

    def _head_is_there(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._is_in_head:
            self._refuse(HeadTimeout())
        elif self.cycle is None or self.cycle.response_complete:
            self.transport.close()  # nothing was asked, so there is nothing to answer

    def _await_reader(self, before: int) -> None:
        """`before`: what lay there when it was looked at last."""
        self._stop_send_timer()
        self._send_timer = self.loop.call_later(self._limits.send_timeout_s, self._look_at_reader, before)

    def _look_at_reader(self, before: int) -> None:
        waiting = self._unread()
        if waiting < before:
            self._await_reader(waiting)  # slow, but it reads
            return
        log.info("reader_stalled client=%s bytes=%d", self.client, waiting)
        metrics.STALLED.inc()
        # close() would wait until it is read; and the kernel forgets its own buffer, up to some MB, only with a reset
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _FORGET)
        self.transport.abort()

    def _unread(self) -> int:
        """Bytes that the client has not taken. The kernel's count too: its buffer of some MB hides a slow reader."""
        in_kernel = array("i", [0])
        fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, in_kernel)
        return self.transport.get_write_buffer_size() + in_kernel[0]

    def _stop_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _refuse(self, error: OpenChatError) -> None:
        """Answer, if no other answer is on its way, and close."""
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        self._head_is_there()
        self._unset_keepalive_if_required()
        log.info("request_refused client=%s code=%s", self.client, error.code)
        metrics.REQUESTS.labels("none", error.status).inc()
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()
            return
        self.transport.write(_answer(error))
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(_LINGER_S, self.transport.close)
        else:
            self.transport.close()


def _answer(error: OpenChatError) -> bytes:
    body = msgspec.json.encode(error_body(error))
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        "x-request-id": new_request_id(),
        **headers_of(error),
    }
    status = HTTPStatus(error.status)
    head = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {text}" for name, text in headers.items())]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body
