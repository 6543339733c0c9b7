"""Errors as OpenAI writes them: `{"error": {message, type, param, code}}`."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from schemas.errors import (
    AuthenticationError,
    InvalidRequest,
    MethodNotAllowed,
    OpenChatError,
    RouteNotFound,
    all_errors,
    type_of_code,
)

_RETRY_AFTER_S = 1
_STATUS_OF_CODE = {cls.code: cls.status for cls in all_errors()}


def error_body(error: OpenChatError) -> dict[str, Any]:
    """The JSON object of an error."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON by msgspec."""
    return Response(msgspec.json.encode(body), status, headers, "application/json")


async def openchat_error_response(request: Request, exc: Exception) -> Response:
    """For every error of the tree."""
    assert isinstance(exc, OpenChatError)
    return error_response(exc)


def error_response(error: OpenChatError, headers: dict[str, str] | None = None) -> Response:
    """An error as an answer, with further headers."""
    return json_response(error_body(error), error.status, (headers or {}) | headers_of(error))


def headers_of(error: OpenChatError) -> dict[str, str]:
    """What clients go by beside the status."""
    headers = {}
    if error.retryable:
        headers["retry-after"] = str(_RETRY_AFTER_S)
    if isinstance(error, AuthenticationError):
        headers["www-authenticate"] = "Bearer"
    if error.status == 409 and not error.retryable:
        headers["x-should-retry"] = "false"  # official clients ask again after every other 409
    return headers


async def http_error_response(request: Request, exc: Exception) -> Response:
    """For what the router refuses."""
    assert isinstance(exc, HTTPException)
    error: OpenChatError
    if exc.status_code == 404:
        error = RouteNotFound(f"There is nothing at {request.method} {request.url.path[:200]}.")
    elif exc.status_code == 405:
        error = MethodNotAllowed(f"{request.method} is not allowed at {request.url.path[:200]}.")
        return error_response(error, {"allow": ", ".join(_allowed(request))})
    else:
        error = InvalidRequest(str(exc.detail))
    return json_response(error_body(error), exc.status_code, dict(exc.headers or {}))


def _allowed(request: Request) -> list[str]:
    """The methods of all routes with this path: the router names those of one."""
    found = (route for route in request.app.state.routes if route.matches(request.scope)[0] is not Match.NONE)
    return sorted({method for route in found for method in route.methods})


async def unexpected_error_response(request: Request, exc: Exception) -> Response:
    """For a defect: the log has the traceback, the client a plain 500."""
    error = OpenChatError("The server made an error.")
    return json_response(error_body(error), 500, {"connection": "close"})  # which the server does, said or not


class GenerationFailed(OpenChatError):
    """A response that ended with `failed`, shown as an HTTP error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]
        self.status = _STATUS_OF_CODE.get(code, 500)  # type: ignore[misc]

    @property
    def type(self) -> str:
        return type_of_code(self.code)
