"""A load client that costs little: raw HTTP/1.1 over asyncio, tokens counted by their bytes.

On a small machine the client shares the cores with what it measures. A client that parses every chunk costs more
than the gateway; this one counts a pattern in what arrives.
"""

from __future__ import annotations

import asyncio
import json
import time
from array import array
from typing import cast

_TOKEN = b'"delta":{"content":"'
_END = b"data: [DONE]\n\n"
_OK = b"HTTP/1.1 200 "


class Stream(asyncio.Protocol):
    """One streamed chat completion on a connection of its own."""

    def __init__(self, port: int, tokens: int, *, keep_times: bool = True) -> None:
        body = json.dumps(
            {
                "model": "synthetic",
                "stream": True,
                "max_tokens": tokens,
                "messages": [{"role": "user", "content": "hi"}],
            }
        ).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        self._request = head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
        self._keep_times = keep_times
        self._carry = b""
        self.is_refused = False
        self.asked_at = 0.0
        self.count = 0
        self.times = array("d")
        """When each token came, perf_counter seconds."""
        self.first = asyncio.Event()
        self.done = asyncio.Event()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self.asked_at = time.perf_counter()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if not self._carry and not data.startswith(_OK):
            self.is_refused = True
        window = self._carry + data
        found = window.count(_TOKEN)
        # the last bytes may begin a pattern, but must not hold a whole one, which would count twice
        self._carry = window[-(len(_TOKEN) - 1) :]
        if found:
            self.count += found
            if self._keep_times:
                self.times.extend([now] * found)
            self.first.set()
        if _END in window[-64:] or self.is_refused:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.first.set()
        self.done.set()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()
        self.done.set()

    @property
    def ttft_s(self) -> float:
        """From the request to the first token."""
        return self.times[0] - self.asked_at


async def open_stream(port: int, tokens: int, *, keep_times: bool = True) -> Stream:
    """Connect and ask."""
    loop = asyncio.get_running_loop()
    _, stream = await loop.create_connection(lambda: Stream(port, tokens, keep_times=keep_times), "127.0.0.1", port)
    return stream


def check(streams: list[Stream], tokens: int | None = None) -> None:
    """Raises RuntimeError where an answer was refused, or a finished stream has not all its tokens."""
    refused = sum(stream.is_refused for stream in streams)
    short = sum(stream.count != tokens for stream in streams) if tokens is not None else 0
    if refused or short:
        raise RuntimeError(f"{refused} of {len(streams)} requests were refused, {short} had not {tokens} tokens")
