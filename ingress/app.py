"""The FastAPI app of one gateway."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingress import (
    admin,
    chat_completions,
    conversations,
    endings,
    fork,
    health,
    input_items,
    metrics,
    models,
    plain_text,
    ui_chat,
    unserved,
    usage,
)
from ingress.create import create_routes
from ingress.errors import http_error_response, openchat_error_response, unexpected_error_response
from ingress.gateway import Gateway
from ingress.retrieve import retrieve_routes
from ingress.wire import load_wires
from schemas.errors import OpenChatError
from telemetry.request_ids import note_request_id

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


class RequestIds:
    """Plain ASGI middleware: `x-request-id` on every answer and log line, the time until the answer began, and
    requests counted by route.

    Not BaseHTTPMiddleware: that one hides the disconnects of clients.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(16)}"
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


def _end_process(task: asyncio.Task[None]) -> None:
    """A gateway that lost its reader for a reason that nobody foresaw must not go on half alive."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("gateway_failed", exc_info=error)
        signal.raise_signal(signal.SIGTERM)


def create_app(gateway: Gateway) -> FastAPI:
    """The app; its lifespan runs what a gateway does beside answering: see `loops`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loops = (
            gateway.tails.run_buses(),
            gateway.tails.run_checks(),
            gateway.viewers.run_refreshes(),
            gateway.intake.run_index(),
            gateway.directory.run_refreshes(),
            gateway.sweeper.run_sweeps(),
            gateway.retention.run_sweeps(),
            gateway.upkeep.run(),
        )
        tasks = [asyncio.create_task(loop) for loop in loops]
        for task in tasks:
            task.add_done_callback(_end_process)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    app = FastAPI(title="OpenChat", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.gateway = gateway
    app.add_exception_handler(OpenChatError, openchat_error_response)
    app.add_exception_handler(HTTPException, http_error_response)
    app.add_exception_handler(Exception, unexpected_error_response)
    app.add_middleware(RequestIds)
    wires = load_wires()
    parts = (
        endings,
        fork,
        input_items,
        chat_completions,
        plain_text,
        ui_chat,
        conversations,
        models,
        usage,
        admin,
        health,
        unserved,
    )
    for router in (create_routes(wires), retrieve_routes(wires), *(part.router for part in parts)):
        app.include_router(router)
    return app
