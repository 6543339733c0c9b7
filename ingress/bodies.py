"""Reading a request body: bounded in size and time, and by the settings, typed."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from ingress.gateway import gateway_of
from schemas.api import AnyBody, Parsed, parse_body
from schemas.errors import BodyTimeout, BodyTooLarge

_BODY_TIMEOUT_S = 30.0


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Raises BodyTooLarge before the rest is read, BodyTimeout."""
    too_large = BodyTooLarge(f"The request body is larger than {max_bytes} bytes.")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise too_large
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            async for part in request.stream():
                size += len(part)
                if size > max_bytes:
                    raise too_large
                parts.append(part)
    except TimeoutError:
        raise BodyTimeout from None
    except ClientDisconnect:
        raise BodyTimeout("The client left before its body was complete.") from None
    return b"".join(parts)


async def read_parsed(request: Request, kind: type[AnyBody], *, if_empty: bytes = b"") -> Parsed[AnyBody]:
    """The typed body and what was left out of it. Raises as `read_body` and `parse_body`."""
    settings = gateway_of(request).settings
    raw = await read_body(request, settings.max_body_bytes)
    return parse_body(raw or if_empty, kind, unsupported=settings.unsupported_parameters)
