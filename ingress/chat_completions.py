"""Stored chat completions: their list, their messages, and their metadata, which may be changed."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from formats.stored_chat import store_messages, stored_chat_completion
from ingress.answer_headers import answer_headers
from ingress.bodies import read_parsed
from ingress.errors import json_response
from ingress.gateway import Gateway, gateway_of, principal_of
from ingress.openapi.operation import Parameter, Shown, documented
from ingress.openapi.parameters import AFTER, LIMIT, OF_A_RESPONSE, OLDEST_FIRST
from ingress.paging import cut, list_object, page_of
from ingress.retrieve import open_tail, with_metadata_of
from ingress.warnings import warning_headers
from ingress.wire import CHAT, FAILURES
from schemas.answers.stored_chat import StoredChatCompletion, StoredChatPage, StoredMessagePage
from schemas.archived import ResponseQuery
from schemas.bodies import ChatCompletionUpdateBody, Metadata
from schemas.conversations import Page
from schemas.errors import InvalidRequest, ItemNotFound, ResponseLocked, ResponseNotFound
from schemas.ids import parse_response_id

router = APIRouter()
_ONE = CHAT.path + "/{response_id}"
_PAGING = (LIMIT, AFTER, OLDEST_FIRST)
_OF_MODEL = Parameter(name="model", type=str, description="Those of this model.")
_WITH_METADATA = Parameter(
    name="metadata", type=Metadata, description="Those that have just these values.", is_object=True
)
_METADATA = re.compile(r"metadata\[.{0,64}\]", re.DOTALL)


@router.get(CHAT.path)
@documented(
    "List stored chat completions",
    tag="Chat completions",
    scope="read",
    query=(*_PAGING, _OF_MODEL, _WITH_METADATA),
    answers=StoredChatPage,
    errors=(ResponseNotFound,),
)
async def list_chat_completions(request: Request) -> Response:
    """Of this tenant, by time, the oldest first; `model`, and `metadata[name]`, which must have just this value."""
    tenant, gateway = (await principal_of(request, "read")).tenant, gateway_of(request)
    query, page = _query(request, gateway), _page(request)
    found = await gateway.stored.find(tenant, query, page)
    shown = found[: page.limit - 1]
    data = [stored_chat_completion(one) async for one in gateway.stored.read(shown)]
    return json_response(list_object(page, data, _itself, _id) | {"has_more": len(found) > len(shown)})


@router.post(_ONE)
@documented(
    "Change a stored chat completion",
    tag="Chat completions",
    scope="responses",
    body=ChatCompletionUpdateBody,
    needs_body=True,
    example={"metadata": {"topic": "hello"}},
    answers={200: Shown(types=(StoredChatCompletion,), headers=OF_A_RESPONSE)},
    errors=(ResponseNotFound, ResponseLocked, *FAILURES),
)
async def update_chat_completion(request: Request, response_id: str) -> Response:
    """Other metadata in the place of all that was there, once it has ended and is archived."""
    gateway, tail = await open_tail(request, response_id, "responses")
    try:
        body, ignored = await read_parsed(request, ChatCompletionUpdateBody)
        CHAT.check_shows(tail)
        await gateway.tails.refresh(tail)
        if not tail.is_complete:
            raise ResponseLocked
        metadata = body.metadata or {}
        # made before, for one that has failed is an error
        headers = answer_headers(gateway, tail) | warning_headers(ignored, _ONE)
        answer = CHAT.show(with_metadata_of(tail, metadata), headers)
        await gateway.stored.change_metadata(tail.accepted.tenant, tail.id, metadata)
        return answer
    finally:
        gateway.tails.release(tail)


@router.get(_ONE + "/messages")
@documented(
    "List the messages of a stored chat completion",
    tag="Chat completions",
    scope="read",
    query=_PAGING,
    answers=StoredMessagePage,
    errors=(ResponseNotFound, ItemNotFound),
)
async def list_messages(request: Request, response_id: str) -> Response:
    """What it was asked with, the oldest first."""
    page = page_of(request, order="asc")
    gateway, tail = await open_tail(request, response_id)
    try:
        CHAT.check_shows(tail)
        messages = store_messages(tail.id, tail.accepted.request.prompt_messages())
    finally:
        gateway.tails.release(tail)
    return json_response(list_object(page, cut(page, messages, _id), _itself, _id))


def _query(request: Request, gateway: Gateway) -> ResponseQuery:
    """Raises InvalidRequest."""
    names = [name for name in request.query_params if _METADATA.fullmatch(name)]
    given = {name[len("metadata[") : -1]: request.query_params[name] for name in names}
    try:
        pairs = msgspec.convert(given, Metadata)
    except msgspec.ValidationError as exc:
        raise InvalidRequest(f"metadata: {exc}.", param="metadata") from exc
    return ResponseQuery(model=_model(request.query_params.get("model", ""), gateway), metadata=pairs)


def _model(name: str, gateway: Gateway) -> str:
    """As rows name it. Raises InvalidRequest for an adapter, which they do not name."""
    served = gateway.directory.known(name)
    if served is not None and served.adapter:
        raise InvalidRequest(
            f"{name!r} is an adapter: its completions are listed with those of {served.model!r}.", param="model"
        )
    entry = gateway.models.get(name)
    return entry.name if entry is not None else name


def _page(request: Request) -> Page:
    """Raises InvalidRequest; ResponseNotFound for an `after` that is no id."""
    page = page_of(request, order="asc")
    after = parse_response_id(page.after) if page.after else ""
    if after is None:
        raise ResponseNotFound(f"No chat completion with the id {page.after[:100]!r}.", param="after")
    return msgspec.structs.replace(page, after=after)


def _itself(one: dict[str, Any]) -> dict[str, Any]:
    return one


def _id(one: dict[str, Any]) -> str:
    return str(one["id"])
