"""GET routes: a response again, whole or from a cursor on, from any gateway, live or archived."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from formats.sse import Encode
from ingress.answer_headers import answer_headers
from ingress.cursor import Cursor
from ingress.errors import error_response
from ingress.framing import SSE, Framing
from ingress.gateway import Gateway, gateway_of, principal_of
from ingress.openapi.operation import Shown, documented
from ingress.openapi.parameters import LAST_EVENT_ID, STARTING_AFTER, STREAM
from ingress.replay import SPEED, show_of
from ingress.tails import Tail
from ingress.viewer import StreamAnswer
from ingress.wire import Wire, failures_of, shown_by
from responses.read import check_tenant
from responses.stored import with_metadata
from schemas.accounts import Scope
from schemas.errors import InvalidCursor, InvalidRequest, OpenChatError, RequestError, ResponseNotFound, StreamDiverged
from schemas.ids import parse_response_id

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def retrieve_routes(wires: Sequence[Wire]) -> APIRouter:
    """One GET route for each wire format."""
    routes = APIRouter()
    for wire in wires:
        routes.add_api_route(
            wire.path + "/{response_id}", _retriever(wire), methods=["GET"], name=f"retrieve_{wire.format}"
        )
    return routes


def _retriever(wire: Wire) -> Callable[[Request, str], Coroutine[Any, Any, Response]]:
    has_stream = wire.encode is not None
    answers = {200: shown_by(wire, is_later=True)}
    if has_stream:
        answers[204] = Shown(description="`last-event-id` is the last of the stream: there is no more to come.")

    @documented(
        f"Show {wire.noun} again",
        tag=wire.tag,
        scope="read",
        query=(STREAM, STARTING_AFTER, SPEED) if has_stream else (),
        headers=(LAST_EVENT_ID,) if has_stream else (),
        answers=answers,
        errors=(ResponseNotFound, *failures_of(wire), *((InvalidCursor, StreamDiverged) if has_stream else ())),
    )
    async def retrieve(request: Request, response_id: str) -> Response:
        return await _retrieve(request, response_id, wire)

    return retrieve


async def _retrieve(request: Request, response_id: str, wire: Wire) -> Response:
    gateway, principal = gateway_of(request), await principal_of(request, "read")
    is_stream = _is_stream(request)
    if wire.encode is not None:
        check_place(request)
        _check_needed(request, is_stream=is_stream)
    tail = await find_tail(gateway, principal.tenant, response_id)
    try:
        wire.check_shows(tail)
        if is_stream and wire.encode is None:
            raise InvalidRequest("Embeddings have no stream.", param="stream")
    except RequestError:
        gateway.tails.release(tail)
        raise
    if is_stream and wire.encode is not None:
        return await stream_from_cursor(request, gateway, tail, wire.encode)
    try:
        await gateway.tails.refresh(tail)
        return wire.show(await as_it_is_now(gateway, tail), answer_headers(gateway, tail))
    except OpenChatError as exc:
        return error_response(exc, answer_headers(gateway, tail))
    finally:
        gateway.tails.release(tail)


async def as_it_is_now(gateway: Gateway, tail: Tail) -> Tail:
    """With the metadata that it has by now. Raises BrokerError, ArchiveError."""
    changed = await gateway.stored.changed_metadata(tail.id) if tail.is_complete else None
    return with_metadata_of(tail, changed) if changed is not None else tail


def with_metadata_of(tail: Tail, metadata: dict[str, str]) -> Tail:
    """A copy, to be shown as one object."""
    return Tail(tail.id, with_metadata(tail.entries, metadata))


async def open_tail(request: Request, text: str, scope: Scope = "read") -> tuple[Gateway, Tail]:
    """The tail of a response of this tenant; release it in the end.

    Raises AuthenticationError, PermissionDenied, ResponseNotFound.
    """
    tenant = (await principal_of(request, scope)).tenant
    return gateway_of(request), await find_tail(gateway_of(request), tenant, text)


async def find_tail(gateway: Gateway, tenant: str, text: str) -> Tail:
    """The tail of a response of a tenant; release it in the end. Raises ResponseNotFound."""
    # one error for all: another's id must not be told from one that nobody has
    not_found = ResponseNotFound(f"No response with the id {text[:100]!r}.")
    response_id = parse_response_id(text)
    if response_id is None:
        raise not_found
    try:
        tail = await gateway.tails.open(response_id)
    except ResponseNotFound:
        raise not_found from None
    try:
        check_tenant(tail.entries, tenant)
    except ResponseNotFound:
        gateway.tails.release(tail)
        raise not_found from None
    return tail


async def stream_from_cursor(
    request: Request, gateway: Gateway, tail: Tail, encode: Encode, framing: Framing = SSE
) -> Response:
    """What is behind the cursor, at once or at `speed`; releases the tail.

    Raises InvalidRequest, InvalidCursor, StreamDiverged, BrokerError.
    """
    try:
        show = show_of(request)
        last_event_id = request.headers.get("last-event-id")
        cursor = cursor_of(request)
        if cursor.is_beyond(tail):
            await gateway.tails.refresh(tail)  # another gateway may have shown more
        start = cursor.start(tail)
        await gateway.viewers.announce(tail)
    except BaseException:
        gateway.tails.release(tail)
        raise
    if last_event_id is not None and tail.is_complete and start == len(tail.entries):
        gateway.tails.release(tail)
        headers = answer_headers(gateway, tail)
        return Response(status_code=204, headers=headers)  # tells an EventSource to stop reconnecting
    return StreamAnswer(gateway, tail, encode, start, headers={}, framing=framing, show=show)


def _check_needed(request: Request, *, is_stream: bool) -> None:
    """Raises InvalidRequest for what only streams have."""
    for name in (STARTING_AFTER.name, SPEED.name):
        if name in request.query_params and not is_stream:
            raise InvalidRequest(f"{name} is of streams: it needs stream=true.", param=name)


def cursor_of(request: Request) -> Cursor:
    """Raises InvalidCursor."""
    return Cursor(request.query_params.get(STARTING_AFTER.name), request.headers.get(LAST_EVENT_ID.name))


def check_place(request: Request) -> None:
    """Where a stream would begin, and how fast: before anything is looked up. Raises InvalidCursor, InvalidRequest."""
    cursor_of(request)
    show_of(request)


def _is_stream(request: Request) -> bool:
    text = request.query_params.get("stream", "false").lower()
    if text not in _BOOLEANS:
        raise InvalidRequest("stream must be true or false.", param="stream")
    return _BOOLEANS[text]
