"""POST routes: a body becomes a response, answered as a stream or as one object."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, get_args

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ingress import metrics
from ingress.answer_headers import answer_headers
from ingress.bodies import read_parsed
from ingress.errors import error_response
from ingress.gateway import Gateway, gateway_of, principal_of
from ingress.openapi.operation import documented
from ingress.openapi.parameters import LOCATION, ON_DISCONNECT, TAKEOVER
from ingress.tails import Tail
from ingress.viewer import StreamAnswer, wait_for_end
from ingress.warnings import warning_headers
from ingress.wire import EMBEDDINGS, RESPONSES, Headers, Wire, failures_of, shown_by
from responses.accept import Fork, Prepared
from responses.capabilities import check_capabilities, check_sees_images, without_wishes
from responses.directory import Served
from responses.history import History
from schemas.accounts import Principal, Scope
from schemas.errors import (
    CapabilityMissing,
    ConversationLocked,
    ConversationNotFound,
    GatewayDrains,
    InvalidRequest,
    ItemNotFound,
    ModelNotFound,
    OpenChatError,
    QueueFull,
    ResponseNotFound,
)
from schemas.requests import Format, GenerationRequest, OnDisconnect, Takeover
from streams.retry import retry_harmless
from telemetry.request_ids import current_request_id

log = logging.getLogger(__name__)
ERRORS_OF_ASKING = (ModelNotFound, CapabilityMissing, QueueFull)
ERRORS_OF_HISTORY = (ResponseNotFound, ItemNotFound, ConversationNotFound, ConversationLocked)


def create_routes(wires: Sequence[Wire]) -> APIRouter:
    """One POST route for each wire format."""
    router = APIRouter()
    for wire in wires:
        router.add_api_route(wire.path, _creator(wire), methods=["POST"], name=f"create_{wire.format}")
    return router


def _creator(wire: Wire) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    @documented(
        f"Ask for {wire.noun}",
        tag=wire.tag,
        scope=scope_of(wire),
        headers=(ON_DISCONNECT, TAKEOVER),
        body=wire.body,
        needs_body=True,
        example=wire.example,
        answers={200: shown_by(wire, headers=(LOCATION,))},
        errors=ERRORS_OF_ASKING + (ERRORS_OF_HISTORY if wire.format == RESPONSES.format else failures_of(wire)),
    )
    async def create(request: Request) -> Response:
        return await _create(request, wire)

    return create


async def _create(request: Request, wire: Wire) -> Response:
    principal = await principal_of(request, scope_of(wire))
    gateway = gateway_of(request)
    settings = gateway.settings
    body, ignored = await read_parsed(request, wire.body)
    body = await gateway.references.resolved(principal.tenant, body)
    served = await gateway.directory.find(body.model)
    if gateway.images.are_named(body):
        check_sees_images(served, wire.format)
        body = await gateway.images.bring_in(body)
    generation = wire.resolve(
        body,
        model=served.model,
        default_max=settings.default_max_output_tokens,
        deadline_at_ms=gateway.intake.deadline_at_ms(),
    )
    generation = msgspec.structs.replace(generation, adapter=served.adapter, store=body.store)
    generation = with_wishes(request, generation)
    if settings.unsupported_parameters == "warn":
        generation, left_out = without_wishes(served, generation, wire.format)
        ignored += left_out
    tail = await accept(gateway, principal, served, generation, format=wire.format)
    headers = warning_headers(ignored, wire.path)
    return await answer(request, tail, wire, is_stream=getattr(body, "stream", False), headers=headers)


def scope_of(wire: Wire) -> Scope:
    """What a key needs, to ask for this."""
    return "embeddings" if wire.format == EMBEDDINGS.format else "responses"


def with_wishes(
    request: Request, generation: GenerationRequest, *, on_disconnect: OnDisconnect = "cancel"
) -> GenerationRequest:
    """With what the headers of a request ask for; `on_disconnect` where they do not. Raises InvalidRequest."""
    return msgspec.structs.replace(
        generation,
        on_disconnect=_chosen(request, "x-openchat-on-disconnect", OnDisconnect) or on_disconnect,
        takeover=_chosen(request, "x-openchat-takeover", Takeover),
    )


async def accept(
    gateway: Gateway,
    principal: Principal,
    served: Served,
    generation: GenerationRequest,
    *,
    format: Format,
    fork: Fork | None = None,
    chat: str = "",
) -> Tail:
    """A new response with its history found and its needs checked; its tail, to be released in the end.

    With `chat` it is the newest of that chat.
    Raises CapabilityMissing, QueueFull, what the history raises, BrokerError.
    """
    history = await gateway.histories.before(principal.tenant, generation)
    whole = msgspec.structs.replace(generation, messages=history.messages + generation.messages)
    check_capabilities(served, whole, format)
    prepared = Prepared(
        generation,
        tenant=principal.tenant,
        format=format,
        lane=generation.lane,
        key=principal.key_id,
        history=history.messages,
        fork=fork,
        request_id=current_request_id(),
    )
    return await _accept(gateway, prepared, history, chat)


async def answer(
    request: Request, tail: Tail, wire: Wire, *, is_stream: bool, headers: Headers | None = None
) -> Response:
    """The stream of a response that was just accepted, or its end as one object; releases the tail.

    `headers`: more for the answer, whatever it is.
    """
    gateway = gateway_of(request)
    headers = wire.location(tail.id) | (headers or {})
    if wire.encode is not None and is_stream:
        return StreamAnswer(gateway, tail, wire.encode, 0, headers=headers)
    try:
        if not tail.accepted.request.background:
            await wait_for_end(gateway, tail, request.receive)
        return wire.answer(tail, headers | answer_headers(gateway, tail))
    except OpenChatError as exc:
        headers |= answer_headers(gateway, tail)
        if isinstance(exc, GatewayDrains):
            # not to be asked again, which would generate it twice: official clients heed x-should-retry
            headers["x-should-retry"] = "false"
        return error_response(exc, headers)
    finally:
        gateway.tails.release(tail)


def _chosen(request: Request, header: str, choice: Any) -> Any:
    """The value of a header that takes one of a few words; None where it is not given. Raises InvalidRequest."""
    text = request.headers.get(header)
    if text is None:
        return None
    words = get_args(choice)
    if text.strip().lower() not in words:
        raise InvalidRequest(f"The header {header} must be {', '.join(words[:-1])} or {words[-1]}.", param=header)
    return text.strip().lower()


async def _accept(gateway: Gateway, prepared: Prepared, history: History, chat: str) -> Tail:
    """Accepted, with a tail that was there before the first token could come."""
    model = prepared.accepted.request.model
    await gateway.intake.check_room(model, prepared.lane)
    await gateway.histories.join(prepared.accepted.request, prepared.id, history)
    if chat:
        # before it is accepted: if this gateway dies behind that, the chat is still resumed
        await retry_harmless(lambda: gateway.chats.point(prepared.accepted.tenant, chat, prepared.id))
    tail = gateway.tails.adopt(prepared.id, prepared.entries)
    tail.is_accepted = False
    try:
        await gateway.intake.accept(prepared)
        tail.is_accepted = True
    except BaseException:
        gateway.tails.release(tail)
        raise
    accepted = prepared.accepted
    metrics.ACCEPTED.labels(model, accepted.format).inc()
    log.info(
        "accepted id=%s tenant=%s model=%s format=%s lane=%s",
        *(prepared.id, accepted.tenant, model, accepted.format, prepared.lane),
    )
    return tail
