"""CORS: pages of which origins may call this server from a browser. Cookies are never used."""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from ingress.errors import error_response
from schemas.errors import InvalidRequest, SettingsError

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s,]+")
_METHODS = ("GET", "HEAD", "POST", "DELETE")
_ANY = ("*",)
"""Headers that may be sent (official clients send many of their own) and that a page may read."""
_PREFLIGHT_HOLDS_S = 3600


def parse_origins(text: str) -> list[str]:
    """Of OPENCHAT_CORS_ORIGINS. Raises SettingsError for what no browser sends."""
    origins = [origin.strip() for origin in text.split(",") if origin.strip()]
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise SettingsError(
                f"OPENCHAT_CORS_ORIGINS: {origin!r} is no origin; one looks like https://app.example.com or "
                "http://localhost:3000, without a path, or is * for all"
            )
    return origins


class Cors(CORSMiddleware):
    """Answers preflights without a key, and lets pages of these origins read every other answer, errors too."""

    def __init__(self, app: ASGIApp, *, origins: list[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=_ANY,
            expose_headers=_ANY,
            max_age=_PREFLIGHT_HOLDS_S,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code == 200:
            return Response(status_code=204, headers=_without_content(answer))
        error = InvalidRequest(f"{bytes(answer.body).decode()}: see OPENCHAT_CORS_ORIGINS.", param="origin")
        return error_response(error, _without_content(answer))


def _without_content(answer: Response) -> dict[str, str]:
    return {name: text for name, text in answer.headers.items() if not name.startswith("content-")}
