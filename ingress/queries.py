"""Query parameters, read strictly: one that is not known is an error."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from starlette.requests import Request

from schemas.errors import InvalidRequest


def check_parameters(request: Request, known: Collection[str]) -> None:
    """Raises InvalidRequest for one that is unknown or given twice."""
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if name not in known:
            raise InvalidRequest(f"Unknown query parameter {name[:100]!r}; there are: {', '.join(known)}.", param=name)
        if names.count(name) > 1:
            raise InvalidRequest(f"{name} is given twice.", param=name)


def integer(request: Request, name: str, default: int, *, least: int, most: int) -> int:
    """Raises InvalidRequest."""
    text = request.query_params.get(name, str(default))
    if not text.isascii() or not text.isdigit() or not least <= int(text[:10]) <= most:
        raise InvalidRequest(f"{name} must be {least} to {most}.", param=name)
    return int(text)


def moment(request: Request, name: str, default: datetime) -> datetime:
    """A time in UTC, without its zone: given as ISO 8601 or as unix seconds. Raises InvalidRequest."""
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        if text.isascii() and text.isdigit():
            return datetime.fromtimestamp(int(text[:12]), UTC).replace(tzinfo=None)
        found = datetime.fromisoformat(text.replace(" ", "+"))  # a plus sign that was not escaped
    except (ValueError, OverflowError, OSError):
        raise InvalidRequest(f"{name} must be a time like 2026-11-25T08:00:00Z, or unix seconds.", param=name) from None
    return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo is not None else found
