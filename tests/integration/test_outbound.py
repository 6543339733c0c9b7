"""HTTP to places that others name, over real sockets: what is fetched, and what is not."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from responses.images import RemoteImages
from responses.outbound import Fetched, Outbound
from responses.public_addresses import Address, parse_rules
from schemas.bodies import ConversationBody, MessageItem, Part
from schemas.errors import AddressRefused, ImageUnavailable, OutboundError
from schemas.settings import Settings

LIMIT = 1000
PNG = b"\x89PNG" + b"x" * 96
OK = b"HTTP/1.1 200 OK\r\ncontent-type: Image/PNG; q=1\r\ncontent-length: 100\r\n\r\n" + PNG


class Server:
    """Says what a test wrote down, and keeps what it was asked."""

    def __init__(self) -> None:
        self.port = 0
        self.heads: list[str] = []
        self.answer: Callable[[asyncio.StreamWriter], Awaitable[None]] = says(OK)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            await self.answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def says(*parts: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    async def answer(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return answer


def redirects(location: str) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    return says(f"HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode())


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as server:
        yield server


class Names:
    """A resolver: each name with what it leads to, one look after the other, the last again and again."""

    def __init__(self, **looks: Sequence[Sequence[str]]) -> None:
        self._looks = {name.replace("_", "."): list(found) for name, found in looks.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[Address]:
        self.asked.append(host)
        looks = self._looks.get(host, [[host]])
        try:
            return [ip_address(text) for text in (looks.pop(0) if len(looks) > 1 else looks[0])]
        except ValueError:
            raise OSError("Name or service not known") from None


@asynccontextmanager
async def outbound(
    *ports: int, names: Names | None = None, allowed: str = "127.0.0.1/32", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Outbound]:
    rules = parse_rules(ports=",".join(map(str, ports or (80,))), allowed=allowed)
    async with Outbound(rules, resolve=names, tls=tls) as out:
        yield out


async def get(out: Outbound, url: str) -> Fetched:
    return await out.get(url, accept="image/png", max_bytes=LIMIT)


async def test_a_document_is_fetched_under_its_name_and_says_nothing_about_us(server: Server) -> None:
    names = Names(images_example=[["127.0.0.1"]])
    async with outbound(server.port, names=names) as out:
        fetched = await get(out, f"http://images.example:{server.port}/a%20b/ü?q=1#part")
    assert fetched == Fetched("image/png", PNG)
    first, *lines = server.heads[0].rstrip().lower().split("\r\n")
    assert first == "get /a%20b/%c3%bc?q=1 http/1.1"
    assert dict(line.split(": ") for line in lines) == {
        "host": f"images.example:{server.port}",
        "accept": "image/png",
        "accept-encoding": "identity",
        "connection": "close",
        "user-agent": "openchat",
    }


async def test_the_system_is_asked_where_no_resolver_is_given(server: Server) -> None:
    async with outbound(server.port) as out:
        assert (await get(out, f"http://localhost:{server.port}/")).body == PNG
        with pytest.raises(OutboundError, match="no public address"):
            await get(out, f"http://nobody.invalid:{server.port}/")
        with pytest.raises(OutboundError, match="no public address"):
            await get(out, f"http://{'x' * 70}.example:{server.port}/")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0"],
)
async def test_this_machine_is_not_public_however_it_is_written(server: Server, host: str) -> None:
    async with outbound(server.port, allowed="") as out:
        with pytest.raises(AddressRefused, match=r"no public address|no valid URL"):
            await get(out, f"http://{host}:{server.port}/")
    assert server.heads == []


@pytest.mark.parametrize("others", [["10.0.0.1"], ["1.1.1.1", "169.254.169.254"], ["::1", "127.0.0.1"]])
async def test_one_address_that_is_not_public_is_enough_to_refuse_a_name(others: list[str]) -> None:
    async with outbound(names=Names(mixed_example=[others])) as out:
        with pytest.raises(AddressRefused, match="no public address"):
            await get(out, "http://mixed.example/")


async def test_a_name_that_leads_elsewhere_a_moment_later_changes_nothing(server: Server) -> None:
    """DNS rebinding: what was checked is what is connected to, and the name is asked for once."""
    async with serving() as inner:
        names = Names(rebinds_example=[["127.0.0.1"], ["127.0.0.2"]])
        async with outbound(server.port, names=names) as out:
            assert (await get(out, f"http://rebinds.example:{server.port}/")).body == PNG
            assert names.asked == ["rebinds.example"]
            with pytest.raises(AddressRefused):
                await get(out, f"http://rebinds.example:{server.port}/")
        assert inner.heads == []
    assert len(server.heads) == 1


async def test_of_several_addresses_one_that_answers_is_enough(server: Server) -> None:
    names = Names(images_example=[["::1", "127.0.0.2", "127.0.0.1"]])
    async with outbound(server.port, names=names, allowed="127.0.0.0/8, ::1/128") as out:
        assert (await get(out, f"http://images.example:{server.port}/")).body == PNG


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("http://10.0.0.1/", "no public address"),
        ("http://169.254.169.254/latest/meta-data/", "no public address"),
        ("http://private.example/", "no public address"),
        ("//[::1]/", "no public address"),
        ("http://images.example:6379/", "port 6379"),
        ("http://user:password@images.example/", "a user name or a password"),
        ("file:///etc/passwd", "no http:// or https://"),
        ("gopher://images.example/", "no http:// or https://"),
        ("http://[", "no public address"),
        ("/again", "redirects more than 3 times"),
    ],
)
async def test_each_redirect_is_checked_like_the_first(server: Server, location: str, words: str) -> None:
    server.answer = redirects(location)
    names = Names(images_example=[["127.0.0.1"]], private_example=[["10.0.0.1"]])
    async with outbound(server.port, 80, names=names) as out:
        with pytest.raises(OutboundError, match=words):
            await get(out, f"http://images.example:{server.port}/")


async def test_a_redirect_to_another_place_that_may_be_asked_is_followed(server: Server) -> None:
    async with serving() as other:
        names = Names(images_example=[["127.0.0.1"]], cdn_example=[["127.0.0.1"]])
        server.answer = redirects(f"http://cdn.example:{other.port}/b")
        async with outbound(server.port, other.port, names=names) as out:
            assert (await get(out, f"http://images.example:{server.port}/a")).body == PNG
        assert other.heads[0].startswith(f"GET /b HTTP/1.1\r\nHost: cdn.example:{other.port}\r\n")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://images.example/", "no http:// or https://"),
        ("http://", "no http:// or https://"),
        ("http:///path", "no http:// or https://"),
        ("http://a b/", "no public address"),
        ("http://\n/", "no valid URL"),
        ("http://images.example:99999/", "port 99999"),
        ("http://images.example:22/", "port 22"),
        ("https://me@images.example/", "a user name or a password"),
        (f"http://images.example/{'x' * 9000}", "longer than 8192"),
    ],
)
async def test_what_is_no_url_of_the_web_is_refused(url: str, words: str) -> None:
    async with outbound(80, 443, names=Names(images_example=[["127.0.0.1"]])) as out:
        with pytest.raises(OutboundError, match=words):
            await get(out, url)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n",), "larger than 1000"),
        ((b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 100] * 11), "larger than 1000"),
        ((b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n", b"x"), "compressed"),
        ((b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",), "the answer there is 404"),
        ((b"HTTP/1.1 206 Partial\r\ncontent-length: 1\r\n\r\nx",), "the answer there is 206"),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nx",), "broke off"),
        ((b"SSH-2.0-OpenSSH_9.2\r\n",), "broke off"),
        ((b"",), "broke off"),
        ((b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100_000,), "broke off"),
    ],
    ids=range(9),
)
async def test_an_answer_that_is_no_document_of_that_size(server: Server, parts: tuple[bytes, ...], words: str) -> None:
    server.answer = says(*parts)
    async with outbound(server.port) as out:
        with pytest.raises(OutboundError, match=words):
            await get(out, f"http://127.0.0.1:{server.port}/")


async def test_a_server_that_takes_its_time_is_left(server: Server) -> None:
    left = asyncio.Event()

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\n\r\n")
        try:
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            left.set()

    server.answer = drip
    settings = msgspec.structs.replace(Settings(), image_urls="fetch", image_timeout_s=0.1)
    url = f"http://127.0.0.1:{server.port}/"
    item = MessageItem("user", [Part("input_image", image_url=url)])
    async with outbound(server.port) as out:
        with pytest.raises(ImageUnavailable, match=r"did not come within 0\.1 s") as caught:
            await RemoteImages(settings, out).bring_in(ConversationBody(items=[item]))
        assert caught.value.param == "items[0].content[0].image_url"
        await left.wait()


async def test_nobody_there_is_said_in_the_same_words_whoever_it_is(server: Server) -> None:
    async with serving() as gone:
        port = gone.port
    async with outbound(port) as out:
        with pytest.raises(OutboundError, match="can not be connected to"):
            await get(out, f"http://127.0.0.1:{port}/")


async def test_cookies_and_proxies_are_not_heeded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    server.answer = says(OK.replace(b"\r\n", b"\r\nset-cookie: a=b\r\n", 1))
    async with outbound(server.port) as out:
        for _ in range(2):
            await get(out, f"http://127.0.0.1:{server.port}/")
    assert "cookie" not in server.heads[1].lower()


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server with this name, and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "server.pem"
    file.write_bytes(secret + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cadata=pem.decode())


async def test_a_certificate_must_be_of_the_name_though_the_address_is_connected_to(tmp_path: Path) -> None:
    server_tls, client_tls = certificate(tmp_path, "images.example")
    shown: list[str | None] = []
    server_tls.sni_callback = lambda _, name, __: shown.append(name)
    async with serving(server_tls) as server:
        names = Names(images_example=[["127.0.0.1"]], other_example=[["127.0.0.1"]])
        async with outbound(server.port, names=names, tls=client_tls) as out:
            assert (await get(out, f"https://images.example:{server.port}/")).body == PNG
            with pytest.raises(OutboundError, match="certificate is not right"):
                await get(out, f"https://other.example:{server.port}/")
            server.answer = redirects(f"http://images.example:{server.port}/")
            with pytest.raises(AddressRefused, match="from https to something else"):
                await get(out, f"https://images.example:{server.port}/")
        async with outbound(server.port, names=names) as out:
            with pytest.raises(OutboundError, match="certificate is not right"):
                await get(out, f"https://images.example:{server.port}/")
    assert shown == ["images.example", "other.example", "images.example", "images.example"]
