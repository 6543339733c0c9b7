"""Query parameters, read strictly: one that is not known is an error."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime

from starlette.requests import Request

from schemas.errors import InvalidRequest
from schemas.settings import Unsupported

_MAX_DIGITS = 12
_CLOCK = r"[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[ +-][0-9]{2}:[0-9]{2})?"
MOMENT = rf"\A([0-9]{{1,12}}|[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}({_CLOCK})?)\Z"
"""How a time may be written: unix seconds, or ISO 8601. A plus sign that was not escaped is a space."""
_OBJECT = re.compile(r"(\w+)\[.{0,64}\]", re.DOTALL)
_IS_MOMENT = re.compile(MOMENT)


def check_parameters(
    request: Request,
    known: Collection[str],
    *,
    repeating: Collection[str] = (),
    objects: Collection[str] = (),
    unsupported: Unsupported = "reject",
) -> list[str]:
    """Raises InvalidRequest for one that is unknown, or given twice and not in `repeating`.

    `objects` are written `name[key]`. With `warn` those that are unknown are not refused: they are what is given back.
    """
    unknown: list[str] = []
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if name in known or _object_of(name) in objects:
            if names.count(name) > 1 and name not in repeating:
                raise InvalidRequest(f"{name} is given twice.", param=name)
        elif unsupported == "warn":
            unknown.append(name)
        else:
            all_known = [*known, *(f"{one}[…]" for one in objects)]
            there = f"there are: {', '.join(all_known)}" if all_known else "there are none here"
            raise InvalidRequest(f"Unknown query parameter {name[:100]!r}; {there}.", param=name[:100])
    return unknown


def _object_of(name: str) -> str | None:
    """Before the brackets; None where there are none."""
    found = _OBJECT.fullmatch(name)
    return found[1] if found else None


def integer(request: Request, name: str, default: int, *, least: int, most: int) -> int:
    """Raises InvalidRequest."""
    text = request.query_params.get(name, str(default))
    value = int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else -1
    if not least <= value <= most:
        raise InvalidRequest(f"{name} must be {least} to {most}.", param=name)
    return value


def moment(request: Request, name: str, default: datetime) -> datetime:
    """A time in UTC, without its zone: given as ISO 8601 or as unix seconds. Raises InvalidRequest."""
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        if not _IS_MOMENT.fullmatch(text):
            raise ValueError
        return _utc(text)
    except (ValueError, OverflowError, OSError):
        raise InvalidRequest(f"{name} must be a time like 2026-11-25T08:00:00Z, or unix seconds.", param=name) from None


def _utc(text: str) -> datetime:
    if text.isdigit():
        return datetime.fromtimestamp(int(text), UTC).replace(tzinfo=None)
    found = datetime.fromisoformat(text[:11] + text[11:].replace(" ", "+"))  # a plus sign that was not escaped
    return found if found.tzinfo is None else found.astimezone(UTC).replace(tzinfo=None)
