"""What a route takes and gives, said at the route: the document shows it, and the query is held to it."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from ingress.gateway import gateway_of
from ingress.queries import check_parameters
from ingress.warnings import warning_headers
from schemas.accounts import Scope
from schemas.errors import OpenChatError

Tag = Literal[
    "Chat completions",
    "Responses",
    "Conversations",
    "Completions",
    "Embeddings",
    "Models",
    "Usage",
    "Administration",
    "Operation",
    "Chats of the AI SDK",
    "Other formats",
]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Awaitable[Response]])
_NAME = "openchat_operation"


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a query, a header, or a variable of a path."""

    name: str
    type: Any
    """For msgspec, which makes its JSON schema."""
    description: str
    default: Any = UNSET
    repeats: bool = False
    """A query may have it several times: it is a list."""
    is_object: bool = False
    """A query has it as `name[key]=value`, for several keys."""
    is_required: bool = False


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which a route answers."""

    description: str = ""
    types: tuple[Any, ...] = ()
    """For msgspec: the object of the answer is one of these. None: the answer has no content."""
    events: tuple[Any, ...] = ()
    """What stands behind `data:` in its stream, if it can be one."""
    text: str = ""
    """Media type of an answer that is plain text."""
    headers: tuple[Parameter, ...] = ()


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path."""

    summary: str
    description: str
    tag: Tag
    scope: Scope | Literal["admin"] | None
    """What the key must open; None: it needs no key."""
    query: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    body: Any = None
    """For msgspec."""
    needs_body: bool = False
    """Without it, no body is an empty object."""
    example: dict[str, Any] = {}
    """Of a body."""
    answers: dict[int, Shown] = {}
    errors: tuple[type[OpenChatError], ...] = ()
    """Beside those that every route of its kind can give: document.py adds them."""


def documented(
    summary: str,
    *,
    tag: Tag,
    scope: Scope | Literal["admin"] | None,
    answers: dict[int, Shown] | Any,
    query: tuple[Parameter, ...] = (),
    headers: tuple[Parameter, ...] = (),
    body: Any = None,
    needs_body: bool = False,
    example: dict[str, Any] | None = None,
    errors: tuple[type[OpenChatError], ...] = (),
) -> Callable[[Endpoint], Endpoint]:
    """Stands below the route's own decorator. `answers`: by status, or the type of a 200 in JSON.

    The description is the docstring of the endpoint. A query with what is not declared is refused by name.
    """
    shown = answers if isinstance(answers, dict) else {200: Shown(types=(answers,))}

    def decorate(endpoint: Endpoint) -> Endpoint:
        @functools.wraps(endpoint)
        async def checked(request: Request, **variables: str) -> Response:
            unknown = check_query(request, operation)
            answer = await endpoint(request, **variables)
            for name, text in warning_headers(unknown, request.scope["route"].path).items():
                answer.headers[name] = ", ".join([*answer.headers.getlist(name), text])
            return answer

        operation = Operation(
            summary=summary,
            description=endpoint.__doc__ or "",
            tag=tag,
            scope=scope,
            query=query,
            headers=headers,
            body=body,
            needs_body=needs_body,
            example=example or {},
            answers=shown,
            errors=errors,
        )
        setattr(checked, _NAME, operation)
        return checked  # type: ignore[return-value]

    return decorate


def operation_of(endpoint: Any) -> Operation | None:
    """What is said of an endpoint; None: nothing."""
    found: Operation | None = getattr(endpoint, _NAME, None)
    return found


def check_query(request: Request, operation: Operation) -> list[str]:
    """Parameters that are unknown and left out. Raises InvalidRequest for one that is not, or that is given twice."""
    return check_parameters(
        request,
        [parameter.name for parameter in operation.query if not parameter.is_object],
        objects=[parameter.name for parameter in operation.query if parameter.is_object],
        repeating=[parameter.name for parameter in operation.query if parameter.repeats],
        unsupported=gateway_of(request).settings.unsupported_parameters,
    )
