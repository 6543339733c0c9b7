"""Conversations and their items, as OpenAI has them, and a list of all of a tenant's."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from ingress.bodies import read_parsed
from ingress.errors import json_response
from ingress.gateway import Gateway, gateway_of, principal_of
from ingress.openapi.operation import Parameter, documented
from ingress.openapi.parameters import AFTER, LIMIT, ORDER
from ingress.paging import list_object, page_of, whole_number
from ingress.warnings import warning_headers
from ingress.wire import Headers
from schemas.accounts import Scope
from schemas.answers.conversations import ConversationObject, ConversationPage, DeletedConversation
from schemas.answers.items import ItemPage, StoredItemObject
from schemas.bodies import ConversationBody, ConversationItemsBody, ConversationUpdateBody
from schemas.conversations import Conversation, ConversationQuery, Page, StoredItem
from schemas.errors import ConversationLocked, ConversationNotFound, InvalidRequest, ItemNotFound
from schemas.ids import ConversationId, parse_conversation_id

Body = TypeVar("Body", bound=msgspec.Struct)

router = APIRouter()
_PATH = "/v1/conversations"
_ONE = _PATH + "/{conversation_id}"
_ITEMS = _ONE + "/items"
_ITEM = _ITEMS + "/{item_id}"
_MAX_TITLE = 512
_Seconds = Annotated[int, Meta(ge=0, le=9_999_999_999)]
_QUERY = (
    Parameter(name="since", type=_Seconds, description="Made at this time or later, unix seconds."),
    Parameter(name="until", type=_Seconds, description="Made before this time, unix seconds."),
    Parameter(
        name="title", type=Annotated[str, Meta(max_length=_MAX_TITLE)], description="A part of the metadata's `title`."
    ),
)


@router.post(_PATH)
@documented(
    "Make a conversation",
    tag="Conversations",
    scope="responses",
    body=ConversationBody,
    example={"metadata": {"title": "Hello"}},
    answers=ConversationObject,
)
async def create_conversation(request: Request) -> Response:
    tenant, gateway = await _caller(request, "responses")
    body, headers = await _body(request, gateway, ConversationBody)
    return json_response(_shown(await gateway.editor.create(tenant, body.items, body.metadata)), headers=headers)


@router.get(_PATH)
@documented(
    "List conversations",
    tag="Conversations",
    scope="read",
    query=(LIMIT, AFTER, ORDER, *_QUERY),
    answers=ConversationPage,
    errors=(ConversationNotFound,),
)
async def list_conversations(request: Request) -> Response:
    """Of this tenant, by the time when they were made; `since` and `until` (unix seconds), `title` (a part of it)."""
    tenant, gateway = await _caller(request, "read")
    page = page_of(request)
    if page.after:
        _parse(page.after)
    since, until = whole_number(request, "since"), whole_number(request, "until")
    query = ConversationQuery(
        created_from_ms=since * 1000 if since is not None else None,
        created_before_ms=until * 1000 if until is not None else None,
        title=_title(request),
    )
    found = await gateway.conversations.find_all(tenant, query, page)
    return json_response(list_object(page, found, _shown, lambda one: one.id))


@router.get(_ONE)
@documented(
    "Show a conversation", tag="Conversations", scope="read", answers=ConversationObject, errors=(ConversationNotFound,)
)
async def retrieve_conversation(request: Request, conversation_id: str) -> Response:
    tenant, gateway = await _caller(request, "read")
    return json_response(_shown(await gateway.conversations.find(tenant, _parse(conversation_id))))


@router.post(_ONE)
@documented(
    "Change a conversation",
    tag="Conversations",
    scope="responses",
    body=ConversationUpdateBody,
    needs_body=True,
    example={"metadata": {"title": "Hello"}},
    answers=ConversationObject,
    errors=(ConversationNotFound,),
)
async def update_conversation(request: Request, conversation_id: str) -> Response:
    tenant, gateway = await _caller(request, "responses")
    body, headers = await _body(request, gateway, ConversationUpdateBody)
    updated = await gateway.editor.update(tenant, _parse(conversation_id), body.metadata)
    return json_response(_shown(updated), headers=headers)


@router.delete(_ONE)
@documented(
    "Delete a conversation",
    tag="Conversations",
    scope="responses",
    answers=DeletedConversation,
    errors=(ConversationNotFound,),
)
async def delete_conversation(request: Request, conversation_id: str) -> Response:
    tenant, gateway = await _caller(request, "responses")
    await gateway.editor.delete(tenant, _parse(conversation_id))
    return json_response({"id": conversation_id, "object": "conversation.deleted", "deleted": True})


@router.post(_ITEMS)
@documented(
    "Add items to a conversation",
    tag="Conversations",
    scope="responses",
    body=ConversationItemsBody,
    needs_body=True,
    example={"items": [{"role": "user", "content": "Hello!"}]},
    answers=ItemPage,
    errors=(ConversationNotFound, ConversationLocked),
)
async def create_items(request: Request, conversation_id: str) -> Response:
    tenant, gateway = await _caller(request, "responses")
    body, headers = await _body(request, gateway, ConversationItemsBody)
    items = await gateway.editor.add_items(tenant, _parse(conversation_id), body.items)
    return _item_list(Page(limit=len(items) + 1), items, headers)


@router.get(_ITEMS)
@documented(
    "List the items of a conversation",
    tag="Conversations",
    scope="read",
    query=(LIMIT, AFTER, ORDER),
    answers=ItemPage,
    errors=(ConversationNotFound, ItemNotFound),
)
async def list_items(request: Request, conversation_id: str) -> Response:
    tenant, gateway = await _caller(request, "read")
    page = page_of(request)
    return _item_list(page, await gateway.conversations.page(tenant, _parse(conversation_id), page))


@router.get(_ITEM)
@documented(
    "Show an item",
    tag="Conversations",
    scope="read",
    answers=StoredItemObject,
    errors=(ConversationNotFound, ItemNotFound),
)
async def retrieve_item(request: Request, conversation_id: str, item_id: str) -> Response:
    tenant, gateway = await _caller(request, "read")
    item = await gateway.conversations.item(tenant, _parse(conversation_id), item_id)
    return json_response(msgspec.Raw(item.body))


@router.delete(_ITEM)
@documented(
    "Delete an item",
    tag="Conversations",
    scope="responses",
    answers=ConversationObject,
    errors=(ConversationNotFound, ItemNotFound, ConversationLocked),
)
async def delete_item(request: Request, conversation_id: str, item_id: str) -> Response:
    """The answer is the conversation, as OpenAI has it."""
    tenant, gateway = await _caller(request, "responses")
    return json_response(_shown(await gateway.editor.delete_item(tenant, _parse(conversation_id), item_id)))


async def _caller(request: Request, scope: Scope) -> tuple[str, Gateway]:
    """Tenant and gateway. Raises AuthenticationError, PermissionDenied."""
    principal = await principal_of(request, scope)
    return principal.tenant, gateway_of(request)


async def _body(request: Request, gateway: Gateway, kind: type[Body]) -> tuple[Body, Headers]:
    """The body, with the images that it names by URL, and headers that name what was left out of it."""
    body, ignored = await read_parsed(request, kind, if_empty=b"{}")
    return await gateway.images.bring_in(body), warning_headers(ignored, request.scope["route"].path)


def _parse(text: str) -> ConversationId:
    """Raises ConversationNotFound."""
    conversation = parse_conversation_id(text)
    if conversation is None:
        raise ConversationNotFound(f"No conversation with the id {text[:100]!r}.")
    return conversation


def _title(request: Request) -> str:
    """Raises InvalidRequest."""
    title = request.query_params.get("title", "")
    if len(title) > _MAX_TITLE:
        raise InvalidRequest(f"title has more than {_MAX_TITLE} characters.", param="title")
    return title


def _shown(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": conversation.id,
        "object": "conversation",
        "created_at": conversation.created_at_ms // 1000,
        "metadata": conversation.metadata,
    }


def _item_list(page: Page, items: list[StoredItem], headers: Headers | None = None) -> Response:
    body = list_object(page, items, lambda item: msgspec.Raw(item.body), lambda item: item.id)
    return json_response(body, headers=headers)
