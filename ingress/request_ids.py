"""`x-request-id` on every answer and log line, the time until the answer began, and requests counted by route."""

from __future__ import annotations

import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingress import metrics
from telemetry.request_ids import note_request_id

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def new_request_id() -> str:
    """For a request that brings none."""
    return f"req_{secrets.token_hex(16)}"


class RequestIds:
    """Plain ASGI middleware, the outermost: what another answers has the header too.

    Not BaseHTTPMiddleware: that one hides the disconnects of clients.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else new_request_id()
        note_request_id(request_id)
        began = time.monotonic()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["openai-processing-ms"] = str(round((time.monotonic() - began) * 1000))
                route = getattr(scope.get("route"), "path", "none")  # the pattern: ids would be endless labels
                metrics.REQUESTS.labels(route, message["status"]).inc()
            await send(message)

        await self._app(scope, receive, send_with_id)
