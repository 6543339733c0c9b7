"""The chats of the Vercel AI SDK: `useChat` with its default transport, resumed and stopped by the chat's own id."""

from __future__ import annotations

import contextlib

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from formats.ui_messages import encode_ui_messages, encode_whole_ui_messages, message_id
from ingress.bodies import read_body, read_parsed
from ingress.create import ERRORS_OF_ASKING, accept, with_wishes
from ingress.errors import json_response
from ingress.framing import Framing, sse_last_words
from ingress.gateway import Gateway, gateway_of, principal_of
from ingress.openapi.operation import Parameter, Shown, documented
from ingress.openapi.parameters import LAST_EVENT_ID, LOCATION, OF_A_RESPONSE, ON_DISCONNECT, STARTING_AFTER, TAKEOVER
from ingress.replay import SPEED
from ingress.retrieve import check_place, open_tail, stream_from_cursor
from ingress.tails import Tail
from ingress.viewer import StreamAnswer
from ingress.warnings import warning_headers
from ingress.wire import RESPONSES
from responses.capabilities import check_sees_images
from responses.directory import Served
from responses.end import cancellation
from responses.read import check_tenant
from responses.ui_messages import resolve_ui_chat
from schemas.accounts import Principal
from schemas.answers.ui_messages import UI_CHUNKS, Stopped
from schemas.api import parse_body
from schemas.errors import InvalidCursor, InvalidRequest, LogGone, ResponseNotFound, StreamDiverged
from schemas.ids import ResponseId
from schemas.ui_messages import MAX_CHAT_ID, StopBody, UiChatBody

router = APIRouter()
_PATH = "/api/chat"
_ONE = _PATH + "/{chat_id:path}"
"""A client may name a chat as it likes, slashes too."""
_VERSION = Parameter(
    name="x-vercel-ai-ui-message-stream", type=str, description="Version of the protocol.", is_required=True
)
_UI = RESPONSES.path + "/{response_id}/ui"
UI = Framing(
    last_words=sse_last_words,
    drains=None,  # a client takes a stream that ends well for the whole answer
    headers={"x-vercel-ai-ui-message-stream": "v1", "cache-control": "no-cache"},
)


@router.post(_PATH)
@documented(
    "Ask for the next answer of a chat",
    tag="Chats of the AI SDK",
    scope="responses",
    headers=(ON_DISCONNECT, TAKEOVER),
    body=UiChatBody,
    needs_body=True,
    example={"id": "my-chat", "messages": [{"role": "user", "parts": [{"type": "text", "text": "Hello!"}]}]},
    answers={200: Shown(events=UI_CHUNKS, headers=(LOCATION, _VERSION, *OF_A_RESPONSE))},
    errors=ERRORS_OF_ASKING,
)
async def create_turn(request: Request) -> Response:
    """The next answer of a chat. It goes on if its client leaves, which may have been a page that is loaded again."""
    principal = await principal_of(request, "responses")
    gateway = gateway_of(request)
    settings = gateway.settings
    body, ignored = await read_parsed(request, UiChatBody)
    served = await gateway.directory.find(body.model) if body.model else await only_model(gateway)
    if gateway.images.are_named(body):
        check_sees_images(served, "ui")
        body = await gateway.images.bring_in(body)
    generation = resolve_ui_chat(
        body,
        model=served.model,
        default_max=settings.default_max_output_tokens,
        deadline_at_ms=gateway.intake.deadline_at_ms(),
    )
    generation = msgspec.structs.replace(generation, adapter=served.adapter, store=body.store)
    generation = with_wishes(request, generation, on_disconnect="continue")
    tail = await accept(gateway, principal, served, generation, format="ui", chat=body.id)
    headers = _location(tail.id) | warning_headers(ignored, _PATH)
    return StreamAnswer(gateway, tail, encode_ui_messages, 0, headers=headers, framing=UI)


@router.get(_ONE + "/stream")
@documented(
    "Go on with the running answer of a chat",
    tag="Chats of the AI SDK",
    scope="read",
    query=(STARTING_AFTER, SPEED),
    headers=(LAST_EVENT_ID,),
    answers={
        200: Shown(events=UI_CHUNKS, headers=(_VERSION, *OF_A_RESPONSE)),
        204: Shown(description="There is nothing to show."),
    },
    errors=(InvalidCursor, StreamDiverged),
)
async def resume_chat(request: Request, chat_id: str) -> Response:
    """The stream of a chat's running response, from its first chunk or behind a cursor; 204 where none runs."""
    principal = await principal_of(request, "read")
    check_place(request)
    gateway = gateway_of(request)
    tail = await _newest(gateway, principal, chat_id)
    has_cursor = "starting_after" in request.query_params or "last-event-id" in request.headers
    if tail is not None and tail.is_complete and not has_cursor:
        gateway.tails.release(tail)
        tail = None
    if tail is None:
        return Response(status_code=204)
    return await _stream(request, gateway, tail)


@router.post(_ONE + "/stop")
@documented(
    "Stop the running answer of a chat",
    tag="Chats of the AI SDK",
    scope="responses",
    body=StopBody,
    answers={200: Shown(types=(Stopped,)), 204: Shown(description="None runs, or another was meant.")},
)
async def stop_chat(request: Request, chat_id: str) -> Response:
    """End the running response of a chat: 204 where none runs, or where another was meant."""
    principal = await principal_of(request, "responses")
    gateway = gateway_of(request)
    raw = await read_body(request, gateway.settings.max_body_bytes)
    body = parse_body(raw or b"{}", StopBody, unsupported="warn").body
    tail = await _newest(gateway, principal, chat_id)
    if tail is None:
        return Response(status_code=204)
    try:
        meant = body.active_stream_id
        if tail.is_complete or (meant and meant not in (tail.id, message_id(tail.accepted))):
            return Response(status_code=204)
        with contextlib.suppress(LogGone):  # archived meanwhile: it had ended
            await gateway.ender.end(tail.id, cancellation())
        return json_response({"stopped": tail.id})
    finally:
        gateway.tails.release(tail)


@router.get(_UI)
@documented(
    "Show a response as a UI message stream",
    tag="Chats of the AI SDK",
    scope="read",
    query=(STARTING_AFTER, SPEED),
    headers=(LAST_EVENT_ID,),
    answers={
        200: Shown(events=UI_CHUNKS, headers=(_VERSION, *OF_A_RESPONSE)),
        204: Shown(description="`last-event-id` is the last of the stream: there is no more to come."),
    },
    errors=(ResponseNotFound, InvalidCursor, StreamDiverged),
)
async def follow_ui_messages(request: Request, response_id: str) -> Response:
    """Any response as a UI message stream, finished ones too."""
    gateway, tail = await open_tail(request, response_id)
    try:
        RESPONSES.check_shows(tail)
    except ResponseNotFound:
        gateway.tails.release(tail)
        raise
    return await _stream(request, gateway, tail)


async def _stream(request: Request, gateway: Gateway, tail: Tail) -> Response:
    return await stream_from_cursor(request, gateway, tail, encode_whole_ui_messages, UI)


def _location(response_id: ResponseId) -> dict[str, str]:
    return {"location": _UI.format(response_id=response_id)}


async def only_model(gateway: Gateway) -> Served:
    """The one that is meant where none is named. Raises InvalidRequest where there are several, or none."""
    listed = await gateway.directory.listed()
    able = [served for served in listed if served.capabilities is None or served.capabilities.generates]
    models = [served for served in able if not served.adapter]
    if len(models) != 1:
        there = ", ".join(served.name for served in able) or "none at the moment"
        raise InvalidRequest(f"model: missing; this server has: {there}.", param="model")
    return models[0]


async def _newest(gateway: Gateway, principal: Principal, chat_id: str) -> Tail | None:
    """The tail of the newest response of a chat of this tenant, to be released in the end; None: there is none."""
    if len(chat_id) > MAX_CHAT_ID:
        raise InvalidRequest(f"The id of a chat has at most {MAX_CHAT_ID} characters.", param="id")
    response_id = await gateway.chats.newest(principal.tenant, chat_id)
    if response_id is None:
        return None
    try:
        tail = await gateway.tails.open(response_id)
    except ResponseNotFound:
        return None
    try:
        check_tenant(tail.entries, principal.tenant)
    except ResponseNotFound:
        gateway.tails.release(tail)
        return None
    return tail
