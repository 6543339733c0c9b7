"""Items by their ids: what they are put in the place of is bounded, however short the body is."""

from __future__ import annotations

from typing import Any, cast

import pytest

from responses.history import MAX_CHARACTERS
from responses.read import ResponseReader
from responses.references import References
from schemas.bodies import ItemReference, MessageItem, ResponsesBody
from schemas.errors import InvalidRequest, ResponseNotFound
from schemas.events import Accepted, Completed, Entry, EntryId, InProgress, LogEvent, Queued, Usage
from schemas.ids import ResponseId, input_item_id, new_response_id
from schemas.requests import GenerationRequest, Message

ID = new_response_id()
NAME = input_item_id(ID, 0, "msg")
LARGE = "x" * (MAX_CHARACTERS // 10)


class OneLog:
    """A reader that knows one response."""

    async def read(self, response_id: ResponseId) -> list[Entry]:
        if response_id != ID:
            raise ResponseNotFound
        request = GenerationRequest(model="m", messages=[Message("user", LARGE)])
        events: list[LogEvent] = [
            Accepted(t=0, id=ID, tenant="a", format="responses", at_ms=1, request=request),
            Queued(t=0, lane="interactive"),
            InProgress(t=0),
            Completed(t=0, usage=Usage()),
        ]
        return [Entry(EntryId(0, number), event) for number, event in enumerate(events, 1)]


async def resolved(times: int, tenant: str = "a") -> Any:
    body = ResponsesBody(model="m", input=[ItemReference(NAME)] * times)
    return await References(cast(ResponseReader, OneLog())).resolved(tenant, body)


async def test_an_item_stands_wherever_it_is_named() -> None:
    body = await resolved(3)
    assert [type(item) for item in body.input] == [MessageItem] * 3


async def test_naming_a_large_item_often_is_refused_before_it_is_held_as_often() -> None:
    with pytest.raises(InvalidRequest, match="larger than") as caught:
        await resolved(10)
    assert caught.value.param == "input"
