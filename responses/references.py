"""Items that a request names by their ids (`item_reference`), as clients do that keep a history by ids."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from formats.items import turn_items
from formats.transcript import transcript_of
from responses.history import MAX_CHARACTERS
from responses.read import ResponseReader, check_tenant
from schemas.bodies import InputItem, ItemReference, ResponsesBody
from schemas.errors import InvalidRequest, ItemNotFound, ResponseNotFound
from schemas.ids import ResponseId, response_of_item

AnyBody = TypeVar("AnyBody", bound=msgspec.Struct)

MAX_RESPONSES = 1_000
"""Whose items one request may name: each is read."""


class References:
    """Puts the items in the place of their names."""

    def __init__(self, reader: ResponseReader) -> None:
        self._reader = reader

    async def resolved(self, tenant: str, body: AnyBody) -> AnyBody:
        """The body with every item that it names; from then on it says everything itself.

        Raises ItemNotFound, InvalidRequest for too many or one that is not done, BrokerError, ArchiveError.
        """
        given = body.input if isinstance(body, ResponsesBody) and isinstance(body.input, list) else []
        names = {item.id for item in given if isinstance(item, ItemReference)}
        if not names:
            return body
        found = await self._found(tenant, names)
        items = [_item(item, found, f"input[{place}].id") for place, item in enumerate(given)]
        sizes = {name: _size(item) for name, item in found.items()}
        _check_size(sum(sizes[item.id] for item in given if isinstance(item, ItemReference)))
        return msgspec.structs.replace(body, input=items)

    async def _found(self, tenant: str, names: set[str]) -> dict[str, InputItem]:
        """By id, what is there of them."""
        responses = {response_id for name in names if (response_id := response_of_item(name)) is not None}
        if len(responses) > MAX_RESPONSES:
            raise InvalidRequest(f"The input names items of more than {MAX_RESPONSES} responses.", param="input")
        found: dict[str, InputItem] = {}
        size = 0
        for response_id in responses:
            items = await self._items(tenant, response_id)
            named = {name: item for name, item in items.items() if name in names}
            size += sum(map(_size, named.values()))
            _check_size(size)
            found |= named
        return found

    async def _items(self, tenant: str, response_id: ResponseId) -> dict[str, InputItem]:
        """Of a response that was stored, those that are done."""
        try:
            entries = await self._reader.read(response_id)
            check_tenant(entries, tenant)
        except ResponseNotFound:
            return {}
        transcript = transcript_of(entries)
        assert transcript.accepted is not None
        if not transcript.accepted.request.store:
            return {}
        done = [item for item in turn_items(transcript) if item["status"] != "in_progress"]
        return {item["id"]: msgspec.convert(item, InputItem) for item in done}


def _size(item: InputItem) -> int:
    return len(msgspec.json.encode(item))


def _check_size(size: int) -> None:
    """A short body can name what is large, and name it often. Raises InvalidRequest."""
    if size > MAX_CHARACTERS:
        raise InvalidRequest(f"The items that the input names are larger than {MAX_CHARACTERS} bytes.", param="input")


def _item(item: InputItem | ItemReference, found: dict[str, InputItem], param: str) -> InputItem:
    if not isinstance(item, ItemReference):
        return item
    if item.id not in found:
        raise ItemNotFound(f"No item with the id {item.id[:100]!r}; send the item itself.", param=param)
    return found[item.id]
