"""Lists as OpenAI pages them: `limit`, `after`, `order`; first and last id, and whether there is more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from starlette.requests import Request

from schemas.conversations import Page
from schemas.errors import InvalidRequest, ItemNotFound

T = TypeVar("T")

_DEFAULT_LIMIT = 20
_MAX_LIMIT = 100


def page_of(request: Request, *, order: str = "desc") -> Page:
    """One more than is shown, which tells whether there is more. `order` is the default. Raises InvalidRequest."""
    limit = whole_number(request, "limit")
    if limit is None:
        limit = _DEFAULT_LIMIT
    if not 1 <= limit <= _MAX_LIMIT:
        raise InvalidRequest(f"limit must be from 1 to {_MAX_LIMIT}.", param="limit")
    order = request.query_params.get("order", order)
    if order not in ("asc", "desc"):
        raise InvalidRequest("order must be asc or desc.", param="order")
    return Page(limit=limit + 1, after=request.query_params.get("after", ""), is_descending=order == "desc")


def whole_number(request: Request, name: str) -> int | None:
    """A parameter that is a whole number from 0; None where it is not given. Raises InvalidRequest."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise InvalidRequest(f"{name} must be a whole number from 0.", param=name)
    return int(text)


def list_object(page: Page, found: Sequence[T], show: Callable[[T], Any], id_of: Callable[[T], str]) -> dict[str, Any]:
    """`found` is what `page` asked for."""
    shown = found[: page.limit - 1]
    return {
        "object": "list",
        "data": [show(one) for one in shown],
        "first_id": id_of(shown[0]) if shown else None,
        "last_id": id_of(shown[-1]) if shown else None,
        "has_more": len(found) > len(shown),
    }


def cut(page: Page, whole: Sequence[T], id_of: Callable[[T], str]) -> Sequence[T]:
    """The page of a list that is all there, the oldest first. Raises ItemNotFound for an `after` that is not in it."""
    ordered = whole[::-1] if page.is_descending else whole
    if not page.after:
        return ordered[: page.limit]
    place = next((i for i, one in enumerate(ordered) if id_of(one) == page.after), None)
    if place is None:
        raise ItemNotFound(f"There is no item {page.after[:100]!r}.", param="after")
    return ordered[place + 1 :][: page.limit]
