"""POST routes: a body becomes a response, answered as a stream or as one object."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from formats.chat import chat_completion, encode_chat
from formats.responses import encode_responses, response_object
from formats.sse import Encode
from formats.transcript import transcript_of
from ingress import metrics
from ingress.bodies import read_body
from ingress.errors import GenerationFailed, json_response
from ingress.gateway import Gateway
from ingress.tails import Tail
from ingress.viewer import StreamAnswer, wait_for_end
from responses.accept import Prepared
from responses.resolve import resolve_chat, resolve_responses
from schemas.api import ChatBody, ResponsesBody, parse_body
from schemas.events import Cancelled, Failed
from schemas.ids import ResponseId, chat_id
from schemas.requests import Lane

router = APIRouter()

_LANE: Lane = "interactive"


def gateway_of(request: Request) -> Gateway:
    """The gateway that serves this request."""
    gateway: Gateway = request.app.state.gateway
    return gateway


def tenant_of(request: Request) -> str:
    """Raises AuthenticationError."""
    return gateway_of(request).keys.tenant_of(request.headers.get("authorization"))


def stream_answer(
    gateway: Gateway, tail: Tail, encode: Encode, start: int, headers: dict[str, str] | None = None
) -> StreamAnswer:
    """SSE from `start` on; releases the tail when it is over."""
    settings = gateway.settings
    return StreamAnswer(
        gateway.tails,
        tail,
        encode,
        start,
        heartbeat_s=settings.heartbeat_s,
        send_timeout_s=settings.send_timeout_s,
        headers=headers or {},
    )


@router.post("/v1/chat/completions")
async def create_chat_completion(request: Request) -> Response:
    tenant, gateway = tenant_of(request), gateway_of(request)
    settings = gateway.settings
    raw = await read_body(request, settings.max_body_bytes)
    body = parse_body(raw, ChatBody, allow_unknown=settings.allow_unknown_parameters)
    model = gateway.models.find(body.model).name
    generation = resolve_chat(
        body,
        model=model,
        default_max=settings.default_max_output_tokens,
        deadline_at_ms=gateway.intake.deadline_at_ms(),
    )
    prepared = Prepared(generation, tenant=tenant, format="chat", lane=_LANE)
    tail = await _accept(gateway, prepared)
    location = {"location": f"/v1/chat/completions/{chat_id(prepared.id)}?stream=true"}
    if body.stream:
        return stream_answer(gateway, tail, encode_chat, 0, location)
    try:
        await wait_for_end(tail)
        return chat_answer(tail, location)
    finally:
        gateway.tails.release(tail)


@router.post("/v1/responses")
async def create_response(request: Request) -> Response:
    tenant, gateway = tenant_of(request), gateway_of(request)
    settings = gateway.settings
    raw = await read_body(request, settings.max_body_bytes)
    body = parse_body(raw, ResponsesBody, allow_unknown=settings.allow_unknown_parameters)
    model = gateway.models.find(body.model).name
    generation = resolve_responses(
        body,
        model=model,
        default_max=settings.default_max_output_tokens,
        deadline_at_ms=gateway.intake.deadline_at_ms(),
    )
    prepared = Prepared(generation, tenant=tenant, format="responses", lane=_LANE)
    tail = await _accept(gateway, prepared)
    location = {"location": f"/v1/responses/{prepared.id}?stream=true"}
    if body.stream:
        return stream_answer(gateway, tail, encode_responses, 0, location)
    try:
        await wait_for_end(tail)
        return responses_answer(tail, location)
    finally:
        gateway.tails.release(tail)


async def _accept(gateway: Gateway, prepared: Prepared) -> Tail:
    """Accepted, with a tail that was there before the first token could come."""
    model = prepared.accepted.request.model
    await gateway.intake.check_room(model, prepared.lane)
    response_id: ResponseId = prepared.id
    tail = gateway.tails.adopt(response_id, prepared.entries)
    try:
        await gateway.intake.accept(prepared)
    except BaseException:
        gateway.tails.release(tail)
        raise
    metrics.ACCEPTED.labels(model, prepared.accepted.format).inc()
    return tail


def chat_answer(tail: Tail, headers: dict[str, str] | None = None) -> Response:
    """The chat.completion object. Raises GenerationFailed."""
    transcript = transcript_of(tail.entries)
    if isinstance(transcript.terminal, Failed):
        raise GenerationFailed(transcript.terminal.error.code, transcript.terminal.error.message)
    if isinstance(transcript.terminal, Cancelled):
        raise GenerationFailed("cancelled", "The response was cancelled.")
    return json_response(chat_completion(transcript), headers=headers)


def responses_answer(tail: Tail, headers: dict[str, str] | None = None) -> Response:
    """The Response object as it stands; a failed one says so itself."""
    return json_response(response_object(transcript_of(tail.entries)), headers=headers)
