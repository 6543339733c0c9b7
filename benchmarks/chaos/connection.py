"""One HTTP/1.1 exchange on a connection of its own, over raw asyncio.

A client library would cost more than the gateway that it talks to, on the same two cores; and
here a connection that ends early is the thing to be observed, not an exception to be wrapped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

HOST = "127.0.0.1"


class Connection(asyncio.Protocol):
    """The answer as it arrives: `head` when status and headers are there, `over` at its end.

    `over` is True where the answer came whole, False where the connection was cut within it.
    """

    def __init__(self, request: bytes, on_body: Callable[[bytes], None]) -> None:
        loop = asyncio.get_running_loop()
        self.head: asyncio.Future[bool] = loop.create_future()
        self.over: asyncio.Future[bool] = loop.create_future()
        self.status = 0
        self.headers: dict[str, str] = {}
        self._request = request
        self._on_body = on_body
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self.head.done() and not self._read_head():
            return
        if self.headers.get("transfer-encoding") == "chunked":
            self._read_chunks()
        else:
            self._read_whole()

    def _read_head(self) -> bool:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        pairs = (line.partition(": ") for line in lines)
        self.headers = {name.lower(): value for name, _, value in pairs}
        self._buffer = rest
        self.head.set_result(True)
        return True

    def _read_chunks(self) -> None:
        """Whole chunks only: what is cut within one was not seen, and is asked for again."""
        while not self.over.done():
            size_text, end, rest = self._buffer.partition(b"\r\n")
            if not end:
                return
            size = int(size_text, 16)
            if len(rest) < size + 2:
                return
            self._buffer = rest[size + 2 :]
            if size:
                self._on_body(rest[:size])
            else:
                self._end(is_whole=True)

    def _read_whole(self) -> None:
        length = int(self.headers.get("content-length", "0"))
        if len(self._buffer) >= length and not self.over.done():
            self._on_body(self._buffer)
            self._end(is_whole=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(is_whole=False)

    def _end(self, *, is_whole: bool) -> None:
        if not self.head.done():
            self.head.set_result(False)
        if not self.over.done():
            self.over.set_result(is_whole)
        self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def request_bytes(method: str, path: str, *, body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
    """A request that asks the server to close the connection behind its answer."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def connect(port: int, request: bytes, on_body: Callable[[bytes], None]) -> Connection:
    """Send a request; returns when status and headers are there. Raises OSError where there is no such answer."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(request, on_body), HOST, port)
    try:
        if not await connection.head:
            raise ConnectionResetError("cut before the headers")
    except BaseException:
        connection.close()
        raise
    return connection
