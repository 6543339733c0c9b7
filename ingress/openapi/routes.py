"""The document itself, and a page that shows it to people."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ingress.errors import json_response
from ingress.openapi.operation import Shown, documented

router = APIRouter()


@router.get("/openapi.json")
@documented("This document", tag="Operation", scope=None, answers=dict)
async def read_document(request: Request) -> Response:
    return json_response(request.app.openapi())


@router.get("/docs")
@documented(
    "This document as a page", tag="Operation", scope=None, answers={200: Shown(text=HTMLResponse.media_type or "")}
)
async def read_page(request: Request) -> Response:
    """The page takes its style and its program from a public CDN."""
    return get_swagger_ui_html(openapi_url="openapi.json", title=request.app.title)
