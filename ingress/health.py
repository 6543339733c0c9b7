"""Health, readiness and metrics; open to everybody, so they tell nothing secret."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from ingress.errors import json_response
from ingress.gateway import Gateway, gateway_of
from ingress.openapi.operation import Shown, documented
from schemas.answers.health import Health, NotReady, Ready
from schemas.errors import OpenChatError

router = APIRouter()


@router.get("/healthz")
@documented("Is this process alive?", tag="Operation", scope=None, answers=Health)
async def healthz(request: Request) -> Response:
    """This process answers."""
    return json_response({"status": "ok"})


@router.get("/readyz")
@documented(
    "Can this process serve?",
    tag="Operation",
    scope=None,
    answers={200: Shown(types=(Ready,)), 503: Shown(types=(NotReady,), description="What is missing.")},
)
async def readyz(request: Request) -> Response:
    """200 once broker, archive and a worker for every model are there, else 503 with what is missing.

    A model with `scale_from_zero` needs no worker: it gets one when somebody asks, which needs this gateway.
    """
    missing = await _missing(gateway_of(request))
    if missing:
        return json_response({"status": "not ready", "missing": missing}, 503)
    return json_response({"status": "ready"})


async def _missing(gateway: Gateway) -> dict[str, str]:
    missing: dict[str, str] = {}
    try:
        await gateway.broker.ping()
        workers = await gateway.registry.living()
    except OpenChatError as exc:
        missing["broker"] = exc.code
    else:
        served = {worker.model for worker in workers if worker.is_ready}
        needed = [entry.name for entry in gateway.models.entries if not entry.scale_from_zero]
        without = [name for name in needed if name not in served]
        if without:
            missing["workers"] = f"no worker with its model loaded for: {', '.join(without)}"
    try:
        await gateway.archive.check()
    except OpenChatError as exc:
        missing["archive"] = exc.code
    return missing


@router.get("/metrics")
@documented("Metrics for Prometheus", tag="Operation", scope=None, answers={200: Shown(text="text/plain")})
async def metrics(request: Request) -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
