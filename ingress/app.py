"""The FastAPI app of one gateway."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache, partial
from importlib.metadata import version

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware

from ingress import (
    admin,
    chat_completions,
    conversations,
    endings,
    fork,
    health,
    input_items,
    models,
    plain_text,
    ui_chat,
    unserved,
    usage,
)
from ingress.cors import Cors, parse_origins
from ingress.create import create_routes
from ingress.errors import http_error_response, openchat_error_response, unexpected_error_response
from ingress.gateway import Gateway
from ingress.openapi import routes as openapi
from ingress.openapi.document import make_document
from ingress.request_ids import RequestIds
from ingress.retrieve import retrieve_routes
from ingress.wire import load_wires
from schemas.errors import OpenChatError

log = logging.getLogger(__name__)


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
    routers = [create_routes(wires), retrieve_routes(wires), *(part.router for part in parts)]
    if gateway.settings.docs:
        routers.append(openapi.router)
    app = FastAPI(
        title="OpenChat", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    app.state.gateway = gateway
    app.state.routes = with_head(routers)
    app.openapi = cache(partial(make_document, app.state.routes, version=version("openchat")))  # type: ignore[method-assign]
    app.add_exception_handler(OpenChatError, openchat_error_response)
    app.add_exception_handler(HTTPException, http_error_response)
    # the last one that is added is the outermost: also what the others answer has an id
    app.add_middleware(ServerErrorMiddleware, handler=unexpected_error_response)
    if origins := parse_origins(gateway.settings.cors_origins):
        app.add_middleware(Cors, origins=origins)
    app.add_middleware(RequestIds)
    for router in routers:
        app.include_router(router)
    return app


def with_head(routers: Sequence[APIRouter]) -> list[APIRoute]:
    """Their routes; what answers GET answers HEAD as well, without the content."""
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    for route in routes:
        if route.methods and "GET" in route.methods:
            route.methods.add("HEAD")
    return routes
