"""The models that take requests."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ingress.errors import json_response
from ingress.gateway import gateway_of, principal_of
from ingress.openapi.operation import documented
from responses.directory import Served
from schemas.answers.models import ModelList, ModelObject
from schemas.errors import ModelNotFound

router = APIRouter()


@router.get("/v1/models")
@documented("List models", tag="Models", scope="read", answers=ModelList)
async def list_models(request: Request) -> Response:
    await principal_of(request, "read")
    return json_response({"object": "list", "data": [_shown(s) for s in await gateway_of(request).directory.listed()]})


@router.get("/v1/models/{model:path}")
@documented("Show a model", tag="Models", scope="read", answers=ModelObject, errors=(ModelNotFound,))
async def retrieve_model(request: Request, model: str) -> Response:
    """By name, alias or adapter."""
    await principal_of(request, "read")
    return json_response(_shown(await gateway_of(request).directory.find(model)))


def _shown(served: Served) -> dict[str, Any]:
    """OpenAI's object, and what we know beyond it; null where no worker has been seen yet."""
    return {
        "id": served.name,
        "object": "model",
        "created": 0,
        "owned_by": "openchat",
        "engine": served.engine,
        "context_length": served.context_length or None,
        "capabilities": served.capabilities.names if served.capabilities is not None else None,
        "aliases": list(served.aliases),
        "parent": served.model if served.adapter else None,
    }
