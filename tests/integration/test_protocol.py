"""What a client can do to a connection before, and after, the app sees a request: raw sockets against a small app."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import socket
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from ingress.protocol import GatewayProtocol, Limits
from tests.waiting import until

pytestmark = [pytest.mark.timeout(60), pytest.mark.asyncio(loop_scope="module")]

LIMITS = Limits(max_head_bytes=2048, head_timeout_s=0.4, send_timeout_s=0.4, max_connections=4)
LARGE = 4 << 20


class App:
    """GET / says ok; /large gives much at once, /endless piece by piece; POST gives the length of the body."""

    def __init__(self) -> None:
        self.written = 0
        self.left = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        match scope["path"]:
            case "/large":
                await Response(b"x" * LARGE)(scope, receive, send)
            case "/endless":
                await self._endless(receive, send)
            case _:
                try:
                    body = await request.body()
                except ClientDisconnect:
                    return
                await JSONResponse({"bytes": len(body)})(scope, receive, send)

    async def _endless(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        left = self.left
        leaving = asyncio.create_task(self._leave(receive, left))
        while not left.is_set():
            await send({"type": "http.response.body", "body": b"x" * 1024, "more_body": True})
            self.written += 1024
            await asyncio.sleep(0)
        await leaving

    async def _leave(self, receive: Receive, left: asyncio.Event) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()


class Served:
    def __init__(self, app: App, port: int) -> None:
        self.app = app
        self.port = port
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, **options)
        self.writers.append(writer)
        return reader, writer

    async def exchange(self, raw: bytes) -> bytes:
        """Everything that comes until the server closes."""
        reader, writer = await self.connect()
        writer.write(raw)
        await writer.drain()
        return await reader.read()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Served]:
    app = App()
    protocol: Any = partial(GatewayProtocol, limits=LIMITS)
    server = uvicorn.Server(uvicorn.Config(app, http=protocol, lifespan="off", log_config=None, access_log=False))
    with socket.create_server(("127.0.0.1", 0)) as sock:
        running = asyncio.create_task(server.serve(sockets=[sock]))
        await until(lambda: server.started)
        yield Served(app, sock.getsockname()[1])
        server.should_exit = server.force_exit = True
        await running


@pytest_asyncio.fixture(loop_scope="module")
async def served(server: Served) -> AsyncIterator[Served]:
    server.app.written = 0
    server.app.left = asyncio.Event()
    yield server
    server.app.left.set()
    for writer in server.writers:
        writer.close()
    server.writers.clear()


def status_and_error(raw: bytes) -> tuple[int, dict[str, Any]]:
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert b"x-request-id: req_" in head
    return int(head.split()[1]), json.loads(body)["error"]


GET = b"GET / HTTP/1.1\r\nhost: x\r\n"
CLOSE = b"connection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (GET + b"a: " + b"x" * 3000 + b"\r\n\r\n", 431, "head_too_large"),
        (GET + b"a: " + b"x" * 300_000, 431, "head_too_large"),  # no end of it
        (GET + b"x" * 3000, 431, "head_too_large"),
        (GET + b"".join(b"a%d: x\r\n" % i for i in range(101)) + b"\r\n", 431, "head_too_large"),
        (b"GET /" + b"x" * 3000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 431, "head_too_large"),
        (GET + b"a: x\r\n", 408, "head_timeout"),
        (b"\x16\x03\x01\x02\x00\x01", 400, "bad_http"),
        (b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n", 400, "bad_http"),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400, "bad_http"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400, "bad_http"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", 400, "bad_http"),
    ],
    ids=range(11),
)
async def test_a_head_that_is_too_large_late_or_no_http_is_an_error_in_the_same_shape(
    served: Served, raw: bytes, status: int, code: str
) -> None:
    found, error = status_and_error(await served.exchange(raw))
    assert (found, error["code"]) == (status, code)
    assert error["type"] == "invalid_request_error"


async def test_heads_and_bodies_within_the_bounds_pass(served: Served) -> None:
    body = b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n"
    post = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
    assert (await served.exchange(post + CLOSE + body)).endswith(b'{"bytes":5000}')
    assert (await served.exchange(GET + b"a: " + b"x" * 1900 + b"\r\n" + CLOSE)).endswith(b'{"bytes":0}')
    large = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n"
    assert (await served.exchange(large + CLOSE + b"x" * 100_000)).endswith(b'{"bytes":100000}')


UPGRADES = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"


@pytest.mark.parametrize("pieces", [1, 2, 3])
async def test_a_request_that_offers_another_protocol_is_served_in_this_one(served: Served, pieces: int) -> None:
    """As Java's client does with every request; its body must not get lost."""
    reader, writer = await served.connect()
    raw = b"POST / HTTP/1.1\r\nhost: x\r\n" + UPGRADES + b"content-length: 9000\r\n\r\n" + b"x" * 9000
    for _ in range(2):
        for piece in range(pieces):
            writer.write(raw[piece * len(raw) // pieces : (piece + 1) * len(raw) // pieces])
            for _ in range(5):  # the server reads each by itself
                await asyncio.sleep(0)
        assert b'{"bytes":9000}' in await reader.readuntil(b"}")
    writer.write(GET + b"connection: Upgrade\r\nupgrade: websocket\r\n\r\n")
    assert b'{"bytes":0}' in await reader.readuntil(b"}")
    status, error = status_and_error(await served.exchange(b"CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n"))
    assert (status, error["code"]) == (400, "bad_http")


async def test_a_trailer_without_end_is_cut_off(served: Served) -> None:
    post = b"POST /endless HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx: "
    reader, writer = await served.connect()
    writer.write(post)
    with contextlib.suppress(ConnectionError):
        while await reader.read(1 << 20):
            writer.write(b"x" * 1000)
    await asyncio.wait_for(served.app.left.wait(), 5)


async def test_a_connection_on_which_nothing_is_asked_is_closed_without_a_word(served: Served) -> None:
    assert await served.exchange(b"") == b""
    assert await served.exchange(b"\r\n" * 10) == b""
    reader, writer = await served.connect()
    writer.write(GET + b"\r\n")
    assert b'{"bytes":0}' in await reader.readuntil(b"}")
    writer.write(b"\r\n")  # would end the time that the server keeps an idle connection
    assert await reader.read() == b""


async def test_a_further_request_on_a_connection_has_its_own_time_and_bounds(served: Served) -> None:
    reader, writer = await served.connect()
    for _ in range(3):
        writer.write(GET + b"a: " + b"x" * 1500 + b"\r\n\r\n")
        assert b'{"bytes":0}' in await reader.readuntil(b"}")
    writer.write(GET)
    status, error = status_and_error(await reader.read())
    assert (status, error["code"]) == (408, "head_timeout")


async def test_half_a_request_behind_a_running_stream_does_not_write_into_it(served: Served) -> None:
    reader, writer = await served.connect()
    writer.write(GET.replace(b"/ ", b"/endless ") + b"\r\n" + GET)
    raw = b""
    while piece := await reader.read(1 << 16):
        raw += piece
    assert b"error" not in raw
    await asyncio.wait_for(served.app.left.wait(), 5)


async def test_more_connections_than_allowed_are_told_so(served: Served) -> None:
    kept = [await served.connect() for _ in range(LIMITS.max_connections)]
    for reader, writer in kept:
        writer.write(GET.replace(b"/ ", b"/endless ") + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
    status, error = status_and_error(await served.exchange(GET + b"\r\n"))
    assert (status, error["code"]) == (503, "too_many_connections")


def small_buffer(port: int) -> socket.socket:
    """A client whose kernel holds little, so that what it does not read stays at the server."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    return sock


@pytest.mark.parametrize("path", [b"/endless", b"/large"])
async def test_who_reads_nothing_holds_little_and_not_for_long(served: Served, path: bytes) -> None:
    with small_buffer(served.port) as sock:
        sock.sendall(b"GET " + path + b" HTTP/1.1\r\nhost: x\r\n\r\n")
        if path == b"/endless":
            await asyncio.wait_for(served.app.left.wait(), 5)
            assert served.app.written < LARGE, "it is not written on without a reader"
        await until(lambda: is_reset(sock), what="the end of the connection")


def is_reset(sock: socket.socket) -> bool:
    """Seen by the kernel, without reading."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET


async def test_who_reads_slowly_gets_all(served: Served) -> None:
    loop = asyncio.get_running_loop()
    with small_buffer(served.port) as sock:
        sock.setblocking(False)
        await loop.sock_sendall(sock, GET.replace(b"/ ", b"/large ") + CLOSE)
        pauses_s = itertools.chain([LIMITS.send_timeout_s / 2] * 5, itertools.repeat(0.0))
        got = 0
        while piece := await loop.sock_recv(sock, 16 << 10):
            got += len(piece)
            await asyncio.sleep(next(pauses_s))
    assert got > LARGE
