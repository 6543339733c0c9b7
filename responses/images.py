"""Images that a request names by URL, where the operator allows it: fetched before the request is accepted.

They become `data:` URLs in the body, so that what is read from it next is as if they had been sent: the log has them,
and no worker fetches anything. What is not fetched here is refused there.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from responses.outbound import Fetched
from schemas.bodies import (
    ChatBody,
    ChatMessage,
    ConversationBody,
    ConversationItemsBody,
    ImageUrl,
    MessageItem,
    Part,
    ResponsesBody,
)
from schemas.errors import ImageUnavailable, InvalidRequest, OutboundError
from schemas.settings import Settings
from schemas.ui_messages import UiChatBody, UiMessage, UiPart

AnyBody = TypeVar("AnyBody", bound=msgspec.Struct)

_REMOTE = re.compile(r"https?:", re.IGNORECASE)
_TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif")
_SAME_TYPE = {"image/jpg": "image/jpeg"}
_MAX_IMAGES = 16
_AT_ONCE = 4
"""Of one request."""
_AT_ONCE_IN_ALL = 32
_FIELDS: dict[type[msgspec.Struct], str] = {
    ChatBody: "messages",
    ResponsesBody: "input",
    UiChatBody: "messages",
    ConversationBody: "items",
    ConversationItemsBody: "items",
}
"""Where a body has messages."""


class Documents(Protocol):
    """What fetching needs of the network."""

    async def get(self, url: str, *, accept: str, max_bytes: int) -> Fetched: ...


class RemoteImages:
    """Those of the requests to one gateway."""

    def __init__(self, settings: Settings, documents: Documents) -> None:
        self._is_allowed = settings.image_urls == "fetch"
        self._max_bytes = settings.image_max_bytes
        self._timeout_s = settings.image_timeout_s
        self._documents = documents
        self._fetching = asyncio.Semaphore(_AT_ONCE_IN_ALL)

    def are_named(self, body: msgspec.Struct) -> bool:
        """There is something to fetch."""
        return self._is_allowed and next(_remote_urls(body), None) is not None

    async def bring_in(self, body: AnyBody) -> AnyBody:
        """With the images themselves in the place of their URLs. Raises ImageUnavailable, InvalidRequest."""
        if not self.are_named(body):
            return body
        params: dict[str, str] = {}
        for param, url in _remote_urls(body):
            params.setdefault(url, param)
        if len(params) > _MAX_IMAGES:
            raise InvalidRequest(f"At most {_MAX_IMAGES} images by URL in a request.", param=_FIELDS[type(body)])
        fetch = _Fetch(self._documents, self._max_bytes, self._fetching)
        return _with_urls(body, await fetch.urls(params, self._timeout_s))


class _Fetch:
    """The images of one request, which together have so many bytes at most."""

    def __init__(self, documents: Documents, max_bytes: int, in_all: asyncio.Semaphore) -> None:
        self._documents = documents
        self._max_bytes = max_bytes
        self._left = max_bytes
        self._in_all = in_all
        self._own = asyncio.Semaphore(_AT_ONCE)

    async def urls(self, params: dict[str, str], timeout_s: float) -> dict[str, str]:
        """URL → `data:` URL; `params` says where each stands. The first one that can not be had ends it."""
        tasks = [asyncio.create_task(self._one(url, param)) for url, param in params.items()]
        try:
            async with asyncio.timeout(timeout_s):
                return dict(zip(params, await asyncio.gather(*tasks), strict=True))
        except TimeoutError:
            late = next(param for task, param in zip(tasks, params.values(), strict=True) if _is_late(task))
            raise _unavailable(late, f"it did not come within {timeout_s} s") from None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, url: str, param: str) -> str:
        try:
            async with self._own, self._in_all:
                fetched = await self._documents.get(url, accept=", ".join(_TYPES), max_bytes=self._max_bytes)
        except OutboundError as exc:
            raise _unavailable(param, exc.message) from exc
        kind = _SAME_TYPE.get(fetched.content_type, fetched.content_type)
        if kind not in _TYPES:
            raise _unavailable(param, f"its type must be one of {', '.join(_TYPES)}")
        self._left -= len(fetched.body)
        if self._left < 0:
            raise _unavailable(param, f"the images are larger than {self._max_bytes} bytes together")
        return f"data:{kind};base64,{base64.b64encode(fetched.body).decode()}"


def _is_late(task: asyncio.Task[str]) -> bool:
    return task.cancelled() or not task.done()


def _unavailable(param: str, why: str) -> ImageUnavailable:
    return ImageUnavailable(f"{param}: the image can not be fetched: {why}.", param=param)


def _messages(body: msgspec.Struct) -> Sequence[Any]:
    found = getattr(body, _FIELDS.get(type(body), ""), ())
    return found if isinstance(found, list) else ()


def _remote_urls(body: msgspec.Struct) -> Iterator[tuple[str, str]]:
    """Where each image by URL stands, and its URL."""
    for i, message in enumerate(_messages(body)):
        content, name = _content_of(message)
        for place, part in enumerate(content):
            url, field = _url_of(part)
            if url is not None and _REMOTE.match(url):
                yield f"{_FIELDS[type(body)]}[{i}].{name}[{place}].{field}", url


def _content_of(message: Any) -> tuple[Sequence[Part | UiPart], str]:
    """The parts among which images may be, and the name of the field."""
    match message:
        case UiMessage(role="user", parts=parts):
            return parts, "parts"
        case ChatMessage(content=list(parts)) | MessageItem(content=list(parts)):
            return parts, "content"
        case _:
            return (), ""


def _url_of(part: Part | UiPart) -> tuple[str | None, str]:
    """None where it is no image, and the name of the field."""
    if isinstance(part, UiPart):
        is_image = part.type == "file" and (part.media_type or "").startswith("image/")
        return part.url if is_image else None, "url"
    image = part.image_url
    return image.url if isinstance(image, ImageUrl) else image, "image_url"


def _with_urls(body: AnyBody, urls: dict[str, str]) -> AnyBody:
    messages = [_message_with(message, urls) for message in _messages(body)]
    return msgspec.structs.replace(body, **{_FIELDS[type(body)]: messages})


def _message_with(message: Any, urls: dict[str, str]) -> Any:
    content, name = _content_of(message)
    if not name:
        return message
    return msgspec.structs.replace(message, **{name: [_part_with(part, urls) for part in content]})


def _part_with(part: Part | UiPart, urls: dict[str, str]) -> Part | UiPart:
    url = urls.get(_url_of(part)[0] or "")
    if url is None:
        return part
    if isinstance(part, UiPart):
        return msgspec.structs.replace(part, url=url)
    image = part.image_url
    return msgspec.structs.replace(
        part, image_url=msgspec.structs.replace(image, url=url) if isinstance(image, ImageUrl) else url
    )
