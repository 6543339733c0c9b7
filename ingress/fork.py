"""POST /v1/responses/{id}/fork: a new response that begins with the events of another, up to one of them."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ingress.bodies import read_body
from ingress.create import ERRORS_OF_ASKING, ERRORS_OF_HISTORY, accept, answer, with_wishes
from ingress.gateway import Gateway, gateway_of, principal_of
from ingress.openapi.operation import documented
from ingress.openapi.parameters import LOCATION, ON_DISCONNECT, TAKEOVER
from ingress.retrieve import find_tail
from ingress.tails import Tail
from ingress.wire import RESPONSES, shown_by
from responses.accept import Fork
from responses.directory import Served
from responses.fork import check_fork, cut, forked_request
from schemas.api import parse_body
from schemas.bodies import FIXED_IN_FORKS, ForkBody
from schemas.decoding import UNDECODABLE
from schemas.errors import InvalidCursor, StreamDiverged, UnsupportedParameter

router = APIRouter()

_MAX_BODY_BYTES = 128 << 10


@router.post(RESPONSES.path + "/{response_id}/fork")
@documented(
    "Ask for a response that begins as another",
    tag="Responses",
    scope="responses",
    headers=(ON_DISCONNECT, TAKEOVER),
    body=ForkBody,
    needs_body=True,
    example={"after": 10, "temperature": 1.0},
    answers={200: shown_by(RESPONSES, headers=(LOCATION,))},
    errors=(*ERRORS_OF_ASKING, *ERRORS_OF_HISTORY, InvalidCursor, StreamDiverged),
)
async def fork_response(request: Request, response_id: str) -> Response:
    """Answered as POST /v1/responses is, whatever API the other was asked in."""
    principal = await principal_of(request, "responses")
    gateway = gateway_of(request)
    body = _parse(await read_body(request, _MAX_BODY_BYTES))
    old = await find_tail(gateway, principal.tenant, response_id)
    try:
        generation = forked_request(old.accepted, body, deadline_at_ms=gateway.intake.deadline_at_ms())
        served, fork = await _cut(gateway, old, body.after)
    finally:
        gateway.tails.release(old)
    generation = msgspec.structs.replace(with_wishes(request, generation), model=served.model, adapter=served.adapter)
    check_fork(fork, generation, served)
    new = await accept(gateway, principal, served, generation, format=RESPONSES.format, fork=fork)
    return await answer(request, new, RESPONSES, is_stream=body.stream)


def _parse(raw: bytes) -> ForkBody:
    """Strictly, whatever the settings say. Raises InvalidRequest, UnsupportedParameter."""
    _refuse_fixed(raw)
    return parse_body(raw, ForkBody, unsupported="reject").body


def _refuse_fixed(raw: bytes) -> None:
    """Also with a value that asks for nothing elsewhere: here it would be another than it was."""
    try:
        values = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except UNDECODABLE:
        return  # who parses it says what is wrong
    for name, value in values.items():
        if name in FIXED_IN_FORKS and bytes(value) != b"null":
            message = f"{name!r} can not be changed by a fork: what it keeps was made with it. Send a new request."
            raise UnsupportedParameter(message, param=name)


async def _cut(gateway: Gateway, tail: Tail, after: int) -> tuple[Served, Fork]:
    """Raises ModelNotFound, InvalidCursor, InvalidRequest, and the error of a tail that diverged."""
    if after >= len(tail.entries):
        await gateway.tails.refresh(tail)  # another gateway may have shown more
    if tail.error is not None:
        raise tail.error
    served = await gateway.directory.find(tail.accepted.request.shown_model)
    return served, cut(tail.entries, after, engine=served.engine)
