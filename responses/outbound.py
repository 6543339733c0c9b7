"""HTTP to places that others name: images in requests, webhooks.

- A name is resolved once, all its addresses are checked, and the connection goes to one of just these: a name that
  leads elsewhere a moment later changes nothing. Host, SNI and the name in the certificate stay the name's.
- No proxy, no credentials and no certificates from the environment; no cookies; no redirect that was not checked.
- Resolving has threads of its own: names whose servers do not answer hold up nothing else.
- What went wrong is told in few words: whoever named the place learns nothing of the network that this server is in.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from ipaddress import ip_address
from ssl import SSLContext
from types import TracebackType

import httpx
import msgspec

from responses.public_addresses import NO_PUBLIC_ADDRESS, Address, AddressRules
from schemas.errors import AddressRefused, OutboundError

Resolve = Callable[[str, int], Awaitable[list[Address]]]
"""Host and port → its addresses, the best first. Raises OSError."""

_PORTS = {"http": 80, "https": 443}
_MAX_URL = 8192
_MAX_REDIRECTS = 3
_MAX_ADDRESSES = 4
"""Of a host, tried one after the other."""
_MAX_CONNECTIONS = 64
_RESOLVERS = 4
_TIMEOUTS = httpx.Timeout(10.0, connect=3.0).as_dict()
"""Of one step each, a pause in the answer too; the whole is limited by who asks."""
# a connection that was kept could be taken for another host behind the same address, whose certificate it never showed
_HEADERS = {"user-agent": "OpenChat", "accept-encoding": "identity", "connection": "close"}


class Fetched(msgspec.Struct, frozen=True):
    """A document."""

    content_type: str
    """In small letters, without parameters."""
    body: bytes


class Outbound:
    """Connects to what the rules allow. `async with` owns its connections and threads."""

    def __init__(self, rules: AddressRules, *, resolve: Resolve | None = None, tls: SSLContext | None = None) -> None:
        """`tls`: which certificates are trusted; None: those of the usual authorities."""
        self._rules = rules
        self._resolvers = ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="resolve")
        self._resolve = resolve or self._ask_system
        self._tls = tls
        self._transport: httpx.AsyncHTTPTransport | None = None

    async def __aenter__(self) -> Outbound:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._resolvers.shutdown(wait=False, cancel_futures=True)
        if self._transport is not None:
            await self._transport.aclose()

    async def get(self, url: str, *, accept: str, max_bytes: int) -> Fetched:
        """The document at a URL, redirects followed. Raises AddressRefused, OutboundError."""
        with _mapped_errors():
            if len(url) > _MAX_URL:
                raise AddressRefused(f"the URL is longer than {_MAX_URL} characters")
            place = httpx.URL(url)
            for _ in range(_MAX_REDIRECTS + 1):
                request = httpx.Request("GET", place, headers=_HEADERS | {"accept": accept})
                async with self.answer(request) as response:
                    if not response.has_redirect_location:
                        return await _document(response, max_bytes)
                    place = _redirected(place, response)
        raise OutboundError(f"it redirects more than {_MAX_REDIRECTS} times")

    @asynccontextmanager
    async def answer(self, request: httpx.Request) -> AsyncIterator[httpx.Response]:
        """The answer to a request, its body not read yet; a redirect is one too.

        Raises AddressRefused, OutboundError.
        """
        with _mapped_errors():
            response = await self._send(request)
            try:
                yield response
            finally:
                await response.aclose()

    async def _send(self, request: httpx.Request) -> httpx.Response:
        host, port = self._place_of(request.url)
        addresses = await self._resolve(host, port)
        for address in addresses:
            self._rules.check_address(address)
        failure: httpx.TransportError = httpx.ConnectError(NO_PUBLIC_ADDRESS)
        for address in addresses[:_MAX_ADDRESSES]:
            try:
                return await self._connections().handle_async_request(_pinned(request, host, address))
            except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
                failure = exc
        raise failure

    def _place_of(self, url: httpx.URL) -> tuple[str, int]:
        """Host and port, if it may be asked for them. Raises AddressRefused."""
        if url.scheme not in _PORTS or not url.host:
            raise AddressRefused("it is no http:// or https:// URL")
        if url.userinfo:
            raise AddressRefused("it has a user name or a password in it")
        port = url.port or _PORTS[url.scheme]
        self._rules.check_port(port)
        return url.raw_host.decode("ascii"), port

    async def _ask_system(self, host: str, port: int) -> list[Address]:
        ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._resolvers, ask)
        return list(dict.fromkeys(ip_address(place[0]) for _, _, _, _, place in found))

    def _connections(self) -> httpx.AsyncHTTPTransport:
        """Made when it is needed first: most gateways fetch nothing."""
        if self._transport is None:
            limits = httpx.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=0)
            self._transport = httpx.AsyncHTTPTransport(verify=self._tls or True, trust_env=False, limits=limits)
        return self._transport


def _pinned(request: httpx.Request, host: str, address: Address) -> httpx.Request:
    """To this address, in the name of this host."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=str(address)),
        headers=request.headers,  # `Host` is among them
        stream=request.stream,
        extensions={"timeout": _TIMEOUTS, **request.extensions, "sni_hostname": host},
    )


def _redirected(place: httpx.URL, response: httpx.Response) -> httpx.URL:
    """Raises AddressRefused from https to http."""
    following = place.join(response.headers["location"])
    if place.scheme == "https" and following.scheme != "https":
        raise AddressRefused("it redirects from https to something else")
    return following


async def _document(response: httpx.Response, max_bytes: int) -> Fetched:
    """Raises OutboundError for what is no plain 200, or too large."""
    if response.status_code != httpx.codes.OK:
        raise OutboundError(f"the answer there is {response.status_code}")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise OutboundError("the answer there is compressed, which nobody asked for")
    too_large = OutboundError(f"it is larger than {max_bytes} bytes")
    declared = response.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise too_large
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > max_bytes:
            raise too_large
        parts.append(part)
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return Fetched(content_type, b"".join(parts))


@contextmanager
def _mapped_errors() -> Iterator[None]:
    """Turn the errors of the library and of the resolver into OutboundError."""
    try:
        yield
    except httpx.InvalidURL as exc:
        raise AddressRefused("it is no valid URL") from exc
    except httpx.TimeoutException as exc:
        raise OutboundError("there is no answer in time") from exc
    except httpx.ConnectError as exc:
        raise OutboundError("it can not be connected to, or its certificate is not right") from exc
    except httpx.HTTPError as exc:
        raise OutboundError("the connection broke off") from exc
    except (OSError, UnicodeError) as exc:  # of the resolver
        raise OutboundError(NO_PUBLIC_ADDRESS) from exc
