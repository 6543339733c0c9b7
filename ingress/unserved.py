"""Routes of OpenAI's API that are not here, where another route looks alike: a plain 404 instead of its 405."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ingress.gateway import principal_of
from ingress.wire import RESPONSES
from schemas.errors import RouteNotFound

router = APIRouter()


@router.post(RESPONSES.path + "/compact", include_in_schema=False)
@router.post(RESPONSES.path + "/input_tokens", include_in_schema=False)
async def refuse(request: Request) -> Response:
    """Raises RouteNotFound, AuthenticationError, PermissionDenied."""
    await principal_of(request, "responses")
    raise RouteNotFound(f"{request.method} {request.url.path} is not served here.")
