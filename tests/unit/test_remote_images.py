"""Images by URL become part of the body; what can not be had is named by its place."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from responses.images import RemoteImages
from responses.outbound import Fetched
from responses.resolve import resolve_chat, resolve_responses
from schemas.api import parse_body
from schemas.bodies import ChatBody, ConversationItemsBody, ResponsesBody
from schemas.errors import ImageUnavailable, InvalidRequest, OutboundError
from schemas.requests import ImageContent, TextContent
from schemas.settings import Settings
from schemas.ui_messages import UiChatBody

SETTINGS = msgspec.structs.replace(Settings(), image_urls="fetch", image_max_bytes=10)
PNG = Fetched("image/png", b"\x89PNG")
URL = "https://images.example/a.png"


class Shelf:
    """Documents by URL; of those that are not there none comes."""

    def __init__(self, **documents: Fetched | OutboundError) -> None:
        self.documents = {f"https://images.example/{name}.png": document for name, document in documents.items()}
        self.asked: list[str] = []
        self.at_once = 0
        self.most_at_once = 0

    async def get(self, url: str, *, accept: str, max_bytes: int) -> Fetched:
        self.asked.append(url)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await (asyncio.sleep(0) if url in self.documents else asyncio.Event().wait())
        finally:
            self.at_once -= 1
        document = self.documents[url]
        if isinstance(document, OutboundError):
            raise document
        return document


def chat(*urls: str) -> ChatBody:
    parts = [{"type": "image_url", "image_url": {"url": url, "detail": "low"}} for url in urls]
    messages = [
        {"role": "system", "content": "look"},
        {"role": "user", "content": [{"type": "text", "text": "at"}, *parts]},
    ]
    return body(ChatBody, {"model": "m", "messages": messages})


def body(kind: Any, values: dict[str, Any]) -> Any:
    return parse_body(msgspec.json.encode(values), kind, unsupported="reject").body


async def bring_in(given: Any, shelf: Shelf, settings: Settings = SETTINGS) -> Any:
    return await RemoteImages(settings, shelf).bring_in(given)


async def test_an_image_stands_where_its_url_stood() -> None:
    given = chat(URL, "data:image/gif;base64,AAAA", "HTTPS://images.example/a.png")
    shelf = Shelf(a=PNG)
    shelf.documents["HTTPS://images.example/a.png"] = Fetched("image/jpg", b"x")
    request = resolve_chat(await bring_in(given, shelf), model="m", default_max=0, deadline_at_ms=0)
    assert request.messages[1].content == [
        TextContent("at"),
        ImageContent("data:image/png;base64,iVBORw==", "low"),
        ImageContent("data:image/gif;base64,AAAA", "low"),
        ImageContent("data:image/jpeg;base64,eA==", "low"),
    ]


async def test_the_other_bodies_have_images_too() -> None:
    item = {"role": "user", "content": [{"type": "input_image", "image_url": URL, "detail": "high"}]}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    given = await bring_in(body(ResponsesBody, {"model": "m", "input": [call, item]}), Shelf(a=PNG))
    request = resolve_responses(given, model="m", default_max=0, deadline_at_ms=0)
    assert request.messages[1].content == [ImageContent("data:image/png;base64,iVBORw==", "high")]
    part = {"type": "file", "mediaType": "image/png", "url": URL}
    answer = {"role": "assistant", "parts": [part]}
    chatting = {"id": "c", "messages": [{"role": "user", "parts": [{"type": "text", "text": "see"}, part]}, answer]}
    ui = await bring_in(body(UiChatBody, chatting), Shelf(a=PNG))
    assert [message.parts[-1].url for message in ui.messages] == ["data:image/png;base64,iVBORw==", URL]
    with pytest.raises(ImageUnavailable) as caught:
        await bring_in(body(UiChatBody, chatting), Shelf(a=OutboundError()))
    assert caught.value.param == "messages[0].parts[1].url"
    added = await bring_in(body(ConversationItemsBody, {"items": [item]}), Shelf(a=PNG))
    assert added.items[0].content[0].image_url == "data:image/png;base64,iVBORw=="


async def test_nothing_is_fetched_where_nothing_is_named_or_where_it_is_refused() -> None:
    shelf = Shelf(a=PNG)
    for plain in (chat(), body(ResponsesBody, {"model": "m", "input": URL})):
        assert await bring_in(plain, shelf) is plain
    named = chat(URL)
    refusing = RemoteImages(Settings(), shelf)
    assert not refusing.are_named(named)
    assert await refusing.bring_in(named) is named
    assert shelf.asked == []
    with pytest.raises(InvalidRequest, match="links are not fetched by this server"):
        resolve_chat(named, model="m", default_max=0, deadline_at_ms=0)


async def test_one_url_is_fetched_once_and_few_at_the_same_time() -> None:
    shelf = Shelf(**{f"i{i}": Fetched("image/webp", b"") for i in range(16)})
    await bring_in(chat(*shelf.documents, *shelf.documents), shelf)
    assert sorted(shelf.asked) == sorted(shelf.documents)
    assert shelf.most_at_once == 4
    with pytest.raises(InvalidRequest, match="At most 16 images by URL") as caught:
        await bring_in(chat(*shelf.documents, URL), shelf)
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (OutboundError("the answer there is 404"), "can not be fetched: the answer there is 404."),
        (Fetched("text/html", b"<html>"), "type must be one of image/png, image/jpeg, image/webp, image/gif"),
        (Fetched("", b"\x89PNG"), "type must be one of"),
        (Fetched("image/svg+xml", b"<svg>"), "type must be one of"),
        (Fetched("image/png", b"x" * 7), "larger than 10 bytes together"),
        (None, "did not come within 0.05 s"),
    ],
)
async def test_what_can_not_be_had_is_named_by_its_place(document: Any, words: str) -> None:
    shelf = Shelf(a=PNG, **({"b": document} if document is not None else {}))
    settings = msgspec.structs.replace(SETTINGS, image_timeout_s=0.05)
    with pytest.raises(ImageUnavailable, match=words) as caught:
        await bring_in(chat(URL, "https://images.example/b.png"), shelf, settings)
    assert caught.value.param == "messages[1].content[2].image_url"
    assert (caught.value.status, caught.value.code) == (400, "invalid_image_url")
    assert shelf.at_once == 0, "what was still coming is left"
