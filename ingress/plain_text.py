"""The text of a response alone, as it comes. There is nothing between its bytes, so nothing keeps an idle one open."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive

from formats.plain_text import encode_plain_text, place_of
from formats.sse import Tail as Entries
from ingress.framing import Framing
from ingress.gateway import Gateway
from ingress.openapi.operation import Parameter, Shown, documented
from ingress.openapi.parameters import OF_A_RESPONSE
from ingress.replay import SPEED, show_of
from ingress.retrieve import open_tail
from ingress.tails import Tail
from ingress.viewer import Show, StreamAnswer, wait_for
from ingress.wire import FAILURES, RESPONSES, check_not_failed
from schemas.errors import InvalidCursor, ResponseNotFound
from schemas.events import Cancelled, Failed

router = APIRouter()
_OFFSET = re.compile(r"[0-9]{1,15}")
_OFFSET_PARAMETER = Parameter(
    name="offset",
    type=Annotated[int, Meta(ge=0, le=999_999_999_999_999)],
    description="So many bytes of the text were seen: it goes on behind them.",
    default=0,
)


def _last_words(tail: Tail) -> bytes | None:
    """Bytes alone can not say that there should have been more."""
    has_failed = tail.error is not None or isinstance(tail.entries[-1].event, Failed | Cancelled)
    return None if has_failed else b""


TEXT = Framing(
    media_type="text/plain; charset=utf-8",
    has_heartbeat=False,
    last_words=_last_words,
    drains=None,
    headers={"x-content-type-options": "nosniff"},  # a model may write what looks like a page
)


class TextAnswer(StreamAnswer):
    """The text from a place on. The status is sent with the first byte, or when it is known how it ended."""

    def __init__(self, gateway: Gateway, tail: Tail, place: tuple[int, int], show: Show) -> None:
        """`place`: the entry where it begins, and how many of its bytes are left out. Releases the tail in the end."""
        start, skipped = place

        def encode(entries: Entries, index: int) -> bytes:
            text = encode_plain_text(entries, index)
            return text[skipped:] if index == start else text

        self._next = start
        super().__init__(gateway, tail, encode, start, headers={}, framing=TEXT, show=show)

    async def prepare(self, receive: Receive) -> None:
        """Raises what ended the response without a byte; DeadlineExceeded, ClientLeft, GatewayDrains."""
        await wait_for(self._gateway, self._tail, receive, self._has_text)
        if not self._has_text():
            check_not_failed(self._tail.entries[-1].event)

    def _has_text(self) -> bool:
        entries = self._tail.entries
        while self._next < len(entries) and not encode_plain_text(entries, self._next):
            self._next += 1
        return self._next < len(entries)


@router.get(RESPONSES.path + "/{response_id}/text")
@documented(
    "Show the text of a response alone",
    tag="Other formats",
    scope="read",
    query=(_OFFSET_PARAMETER, SPEED),
    answers={200: Shown(text="text/plain", headers=OF_A_RESPONSE)},
    errors=(ResponseNotFound, InvalidCursor, *FAILURES),
)
async def follow_text(request: Request, response_id: str) -> Response:
    """From byte `offset` on; ends with the response, and is broken off where that failed."""
    offset, show = _offset(request), show_of(request)
    gateway, tail = await open_tail(request, response_id)
    try:
        RESPONSES.check_shows(tail)
        place = await _place(gateway, tail, offset)
        await gateway.viewers.announce(tail)
    except BaseException:
        gateway.tails.release(tail)
        raise
    return TextAnswer(gateway, tail, place, show)


def _offset(request: Request) -> int:
    text = request.query_params.get("offset", "0")
    if not _OFFSET.fullmatch(text):
        raise InvalidCursor("offset must be a number of bytes: a whole number from 0.", param="offset")
    return int(text)


async def _place(gateway: Gateway, tail: Tail, offset: int) -> tuple[int, int]:
    try:
        return place_of(tail.entries, offset)
    except InvalidCursor:
        await gateway.tails.refresh(tail)  # another gateway may have shown more
        return place_of(tail.entries, offset)
