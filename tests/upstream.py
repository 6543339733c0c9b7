"""An HTTP server that says exactly what a test wrote down, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Script = Callable[["Call"], Awaitable[None]]


@dataclass
class Call:
    """One request as it came, and the way back."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the other side closes the connection."""

    async def answer(self, status: int, body: Any, **headers: str) -> None:
        """A whole answer, as JSON unless it is bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        await self.send(_head(status, headers | {"content-length": str(len(data)), "connection": "close"}) + data)

    async def begin(self) -> None:
        """The head of an event stream that ends with the connection."""
        await self.send(_head(200, {"content-type": "text/event-stream", "connection": "close"}))

    async def chunk(self, text: str | None = None, finish: str | None = None, **fields: Any) -> None:
        """`fields` are of the choice."""
        choice = {"index": 0, "delta": {"content": text} if text is not None else {}, "finish_reason": finish}
        await self.event({"object": "chat.completion.chunk", "choices": [choice | fields]})

    async def event(self, data: Any) -> None:
        await self.send(b"data: " + json.dumps(data).encode() + b"\n\n")

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    def cut(self) -> None:
        """As a server that was killed."""
        self.writer.transport.abort()

    async def watch(self) -> None:
        await self.reader.read()
        self.left.set()


def answers(status: int, body: Any = None, **headers: str) -> Script:
    """A whole answer; without a body an error in OpenAI's format."""

    async def script(call: Call) -> None:
        await call.answer(status, body if body is not None else {"error": {"message": "so it is"}}, **headers)

    return script


def sends(*parts: bytes, cut: bool = False) -> Script:
    """A stream of exactly these bytes."""

    async def script(call: Call) -> None:
        await call.begin()
        for part in parts:
            await call.send(part)
        if cut:
            call.cut()

    return script


def says(*pieces: str, finish: str = "stop") -> Script:
    """A chat completion of these pieces."""

    async def script(call: Call) -> None:
        await call.begin()
        for piece in pieces:
            await call.chunk(piece)
        await call.chunk(finish=finish)
        await call.send(b"data: [DONE]\n\n")

    return script


def streams(*choices: dict[str, Any], usage: dict[str, Any] | None = None) -> Script:
    """A stream of these choices, one a chunk; the last one ends it."""

    async def script(call: Call) -> None:
        await call.begin()
        for number, choice in enumerate(choices, start=1):
            end = {"finish_reason": "stop"} if number == len(choices) else {}
            await call.event({"choices": [end | choice]})
        await call.event({"choices": [], "usage": usage})

    return script


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} X", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


class Upstream:
    """Answers call after call from its scripts, the last one again and again."""

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.calls: list[Call] = []
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        call = await self._read(reader, writer)
        watching = asyncio.create_task(call.watch())
        script = self.scripts[min(len(self.calls), len(self.scripts) - 1)]
        self.calls.append(call)
        try:
            await script(call)
        finally:
            watching.cancel()
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Call:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        assert method == "POST", head[0]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        return Call(path, headers, body, reader, writer)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    made = Upstream()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await made.close()
        await server.wait_closed()
