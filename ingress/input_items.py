"""What a response was asked with."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from formats.items import input_items
from ingress.errors import json_response
from ingress.openapi.operation import documented
from ingress.openapi.parameters import AFTER, LIMIT, ORDER
from ingress.paging import cut, list_object, page_of
from ingress.retrieve import open_tail
from ingress.wire import RESPONSES
from schemas.answers.items import ItemPage
from schemas.errors import ItemNotFound, ResponseNotFound

router = APIRouter()


@router.get(RESPONSES.path + "/{response_id}/input_items")
@documented(
    "List the input of a response",
    tag="Responses",
    scope="read",
    answers=ItemPage,
    query=(LIMIT, AFTER, ORDER),
    errors=(ResponseNotFound, ItemNotFound),
)
async def list_input_items(request: Request, response_id: str) -> Response:
    """The input of this response alone: what came before it is the input and output of others."""
    page = page_of(request)
    gateway, tail = await open_tail(request, response_id)
    try:
        RESPONSES.check_shows(tail)
        items = input_items(tail.id, tail.accepted.request.messages)
    finally:
        gateway.tails.release(tail)
    return json_response(list_object(page, cut(page, items, _id), lambda item: item, _id))


def _id(item: dict[str, Any]) -> str:
    return str(item["id"])
