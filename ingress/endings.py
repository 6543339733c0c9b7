"""Cancel and delete: the end of a response by its tenant, at any gateway, without its worker's help."""

from __future__ import annotations

import contextlib

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ingress.answer_headers import answer_headers
from ingress.errors import json_response
from ingress.openapi.operation import Shown, documented
from ingress.openapi.parameters import OF_A_RESPONSE
from ingress.retrieve import as_it_is_now, open_tail
from ingress.wire import CHAT, RESPONSES
from responses.end import cancellation
from schemas.answers.chat import DeletedChatCompletion
from schemas.answers.responses import DeletedResponse, ResponseObject
from schemas.errors import LogGone, ResponseNotFound

router = APIRouter()


@router.post(RESPONSES.path + "/{response_id}/cancel")
@documented(
    "Cancel a response",
    tag="Responses",
    scope="responses",
    answers={200: Shown(types=(ResponseObject,), headers=OF_A_RESPONSE)},
    errors=(ResponseNotFound,),
)
async def cancel_response(request: Request, response_id: str) -> Response:
    """End it if it has not ended; the answer is the response as it then stands. May be repeated."""
    gateway, tail = await open_tail(request, response_id, "responses")
    try:
        if not tail.is_complete:
            with contextlib.suppress(LogGone):  # archived meanwhile: it had ended
                await gateway.ender.end(tail.id, cancellation())
            await gateway.tails.refresh(tail)
        return RESPONSES.show(await as_it_is_now(gateway, tail), answer_headers(gateway, tail))
    finally:
        gateway.tails.release(tail)


@router.delete(RESPONSES.path + "/{response_id}")
@documented(
    "Delete a response", tag="Responses", scope="responses", answers=DeletedResponse, errors=(ResponseNotFound,)
)
async def delete_response(request: Request, response_id: str) -> Response:
    return await _delete(request, response_id, "response")


@router.delete(CHAT.path + "/{response_id}")
@documented(
    "Delete a chat completion",
    tag="Chat completions",
    scope="responses",
    answers=DeletedChatCompletion,
    errors=(ResponseNotFound,),
)
async def delete_chat_completion(request: Request, response_id: str) -> Response:
    return await _delete(request, response_id, "chat.completion.deleted")


async def _delete(request: Request, text: str, kind: str) -> Response:
    gateway, tail = await open_tail(request, text, "responses")
    try:
        await gateway.deleter.delete(tail.id)
    finally:
        gateway.tails.release(tail)
    return json_response({"id": text, "object": kind, "deleted": True})
