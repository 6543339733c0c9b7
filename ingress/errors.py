"""Errors as OpenAI writes them: `{"error": {message, type, param, code}}`."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from schemas.errors import (
    AuthenticationError,
    InvalidRequest,
    MethodNotAllowed,
    OpenChatError,
    RouteNotFound,
    all_errors,
    type_of_code,
)
from telemetry.request_ids import current_request_id

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
    headers = dict(headers or {})
    if error.retryable:
        headers["retry-after"] = str(_RETRY_AFTER_S)
    if isinstance(error, AuthenticationError):
        headers["www-authenticate"] = "Bearer"
    return json_response(error_body(error), error.status, headers)


async def http_error_response(request: Request, exc: Exception) -> Response:
    """For what the router refuses."""
    assert isinstance(exc, HTTPException)
    error: OpenChatError
    if exc.status_code == 404:
        error = RouteNotFound(f"There is nothing at {request.method} {request.url.path[:200]}.")
    elif exc.status_code == 405:
        error = MethodNotAllowed(f"{request.method} is not allowed at {request.url.path[:200]}.")
    else:
        error = InvalidRequest(str(exc.detail))
    return json_response(error_body(error), exc.status_code, dict(exc.headers or {}))


async def unexpected_error_response(request: Request, exc: Exception) -> Response:
    """For a defect: the log has the traceback, the client a plain 500.

    Starlette answers it outside of all middleware, so the id of the request is put on it here.
    """
    headers = {"x-request-id": current_request_id()}
    return json_response(error_body(OpenChatError("The server made an error.")), 500, headers)


class GenerationFailed(OpenChatError):
    """A response that ended with `failed`, shown as an HTTP error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]
        self.status = _STATUS_OF_CODE.get(code, 500)  # type: ignore[misc]

    @property
    def type(self) -> str:
        return type_of_code(self.code)
