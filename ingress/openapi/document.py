"""The document of all routes of an app."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from fastapi.routing import APIRoute
from msgspec import UNSET

from ingress.openapi.bodies import complete_bodies
from ingress.openapi.operation import Operation, Parameter, Shown, Tag, operation_of
from ingress.openapi.parameters import (
    PROCESSING_MS,
    REQUEST_ID,
    RETRY_AFTER,
    SHOULD_RETRY,
    VARIABLES,
    WARNINGS,
    WWW_AUTHENTICATE,
)
from ingress.openapi.shapes import Schema, Shapes
from schemas.answers.common import ErrorAnswer
from schemas.answers.response_events import ErrorEvent
from schemas.errors import (
    ArchiveError,
    AuthenticationError,
    BodyTimeout,
    BodyTooLarge,
    BrokerError,
    BrokerTimeout,
    InvalidRequest,
    OpenChatError,
    PermissionDenied,
    ProjectionLost,
    RouteNotFound,
    UnsupportedParameter,
)

Document = dict[str, Any]

_VERSION = "3.1.1"
_ABOUT = """The OpenAI API, on responses that outlive their clients, gateways and workers.

Every answer has `x-request-id`; every error is an object `{"error": {message, type, param, code}}`, whose `code` is
stable. Beside what stands at the routes: 404 `route_not_found`, 405 `method_not_allowed` with `allow`, and, before a
route is looked for, 400 `bad_http`, 408 `head_timeout`, 431 `head_too_large` and 503 `too_many_connections`.
`HEAD` is answered like `GET`, without the content."""
_SCHEMES = {
    "key": {"type": "http", "scheme": "bearer", "description": "An API key of a tenant, with the scopes named here."},
    "admin": {"type": "http", "scheme": "bearer", "description": "An admin key."},
}
_VARIABLE = re.compile(r"{(\w+)(?::\w+)?}")
_EVENT_ID = r"^[0-9]+-[1-9][0-9]*$"
_ALWAYS: tuple[type[OpenChatError], ...] = (InvalidRequest, OpenChatError)
_WITH_KEY: tuple[type[OpenChatError], ...] = (
    AuthenticationError,
    ProjectionLost,
    BrokerError,
    BrokerTimeout,
    ArchiveError,
)
_WITH_BODY: tuple[type[OpenChatError], ...] = (UnsupportedParameter, BodyTimeout, BodyTooLarge)


class Documented:
    """One route with what is said of it."""

    def __init__(self, route: APIRoute, operation: Operation) -> None:
        self.path = _VARIABLE.sub(r"{\1}", route.path)
        self.methods = sorted(method.lower() for method in route.methods or () if method != "HEAD")
        self.name = route.name
        self.operation = operation
        self.variables = [VARIABLES[name] for name in _VARIABLE.findall(route.path)]

    @property
    def errors(self) -> list[type[OpenChatError]]:
        """All that it can give, each once."""
        operation = self.operation
        found = [*_ALWAYS, *operation.errors]
        if operation.scope is not None:
            found += _WITH_KEY
            found += [] if operation.scope == "admin" else [PermissionDenied]
        if operation.body is not None:
            found += _WITH_BODY
        if self.variables:
            found.append(RouteNotFound)
        return list(dict.fromkeys(found))

    def kinds(self) -> Iterator[Any]:
        """Every type that it names."""
        operation = self.operation
        yield from (parameter.type for parameter in (*self.variables, *operation.query, *operation.headers))
        if operation.body is not None:
            yield operation.body
        for shown in operation.answers.values():
            yield from (*shown.types, *shown.events, *(header.type for header in shown.headers))


def documented_routes(routes: Iterable[APIRoute]) -> list[Documented]:
    """Those that say what they do, by path."""
    found = [(route, operation_of(route.endpoint)) for route in routes]
    shown = [Documented(route, operation) for route, operation in found if operation is not None]
    return sorted(shown, key=lambda one: (one.path, one.methods))


def make_document(routes: Iterable[APIRoute], *, version: str) -> Document:
    """OpenAPI 3.1 of these routes."""
    shown = documented_routes(routes)
    headers = (REQUEST_ID, PROCESSING_MS, RETRY_AFTER, SHOULD_RETRY, WARNINGS, WWW_AUTHENTICATE)
    kinds = [kind for one in shown for kind in one.kinds()]
    shapes = Shapes([ErrorAnswer, ErrorEvent, *(header.type for header in headers), *kinds])
    complete_bodies(shapes, [one.operation.body for one in shown if one.operation.body is not None])
    paths: dict[str, Any] = {}
    for one in shown:
        for method in one.methods:
            paths.setdefault(one.path, {})[method] = _operation(one, shapes)
    return {
        "openapi": _VERSION,
        "info": {"title": "OpenChat", "version": version, "description": _ABOUT, "license": _license()},
        "tags": [{"name": tag} for tag in get_args(Tag) if any(one.operation.tag == tag for one in shown)],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(shapes.components.items())),
            "securitySchemes": _SCHEMES,
            "headers": {header.name: _header(header, shapes) for header in headers},
        },
    }


def _license() -> dict[str, str]:
    return {"name": "Apache 2.0", "identifier": "Apache-2.0"}


def _operation(one: Documented, shapes: Shapes) -> Schema:
    operation = one.operation
    shown: Schema = {"operationId": one.name, "summary": operation.summary, "tags": [operation.tag]}
    if operation.description:
        shown["description"] = operation.description
    parameters = [
        *(_parameter(variable, "path", shapes) for variable in one.variables),
        *(_parameter(parameter, "query", shapes) for parameter in operation.query),
        *(_parameter(parameter, "header", shapes) for parameter in operation.headers),
    ]
    if parameters:
        shown["parameters"] = parameters
    if operation.body is not None:
        body: Schema = {"schema": shapes.of(operation.body)}
        if operation.example:
            body["example"] = operation.example
        shown["requestBody"] = {"required": operation.needs_body, "content": {"application/json": body}}
    answers = {str(status): _answer(answer, shapes) for status, answer in operation.answers.items()}
    for status, answer in _errors(one.errors).items():
        answers.setdefault(status, answer)
    shown["responses"] = dict(sorted(answers.items()))
    shown["security"] = _security(operation)
    return shown


def _security(operation: Operation) -> list[dict[str, list[str]]]:
    match operation.scope:
        case None:
            return []
        case "admin":
            return [{"admin": []}]
        case scope:
            return [{"key": [scope]}]


def _parameter(parameter: Parameter, where: str, shapes: Shapes) -> Schema:
    schema = shapes.of(parameter.type)
    if parameter.default is not UNSET:
        schema["default"] = parameter.default
    if parameter.repeats:
        schema = {"type": "array", "items": schema}
    is_required = parameter.is_required or where == "path"
    shown: Schema = {"style": "deepObject", "explode": True} if parameter.is_object else {}
    shown |= {"name": parameter.name, "in": where, "description": parameter.description, "schema": schema}
    return shown | ({"required": True} if is_required else {})


def _header(parameter: Parameter, shapes: Shapes) -> Schema:
    shown = {"description": parameter.description, "schema": shapes.of(parameter.type)}
    return shown | ({"required": True} if parameter.is_required else {})


def _answer(answer: Shown, shapes: Shapes) -> Schema:
    content: Schema = {}
    if answer.types:
        content["application/json"] = {"schema": _one_of(answer.types, shapes)}
    if answer.events:
        content["text/event-stream"] = {"schema": _event(answer.events, shapes)}
    if answer.text:
        content[answer.text] = {"schema": {"type": "string"}}
    headers = {header.name: _reference(header) for header in (REQUEST_ID, PROCESSING_MS, WARNINGS)}
    headers |= {header.name: _header(header, shapes) for header in answer.headers}
    shown: Schema = {"description": answer.description or "What was asked for.", "headers": headers}
    return shown | ({"content": content} if content else {})


def _one_of(kinds: tuple[Any, ...], shapes: Shapes) -> Schema:
    schemas = [shapes.of(kind) for kind in kinds]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _event(kinds: tuple[Any, ...], shapes: Shapes) -> Schema:
    """One server-sent event; 3.1 has no word for a stream of them (3.2 has `itemSchema`)."""
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": _one_of((*kinds, ErrorEvent), shapes),
    }
    return {
        "type": "object",
        "description": "One server-sent event of the stream.",
        "properties": {
            "event": {"type": "string"},
            "data": {"anyOf": [{"const": "[DONE]"}, data]},
            "id": {"type": "string", "pattern": _EVENT_ID},
            "retry": {"type": "integer"},
        },
        "required": ["data"],
    }


def _reference(header: Parameter) -> Schema:
    return {"$ref": f"#/components/headers/{header.name}"}


def _errors(classes: list[type[OpenChatError]]) -> dict[str, Schema]:
    """By status."""
    by_status: dict[int, list[type[OpenChatError]]] = {}
    for cls in classes:
        by_status.setdefault(cls.status, []).append(cls)
    return {str(status): _error(status, found) for status, found in by_status.items()}


def _error(status: int, classes: list[type[OpenChatError]]) -> Schema:
    headers = [REQUEST_ID, PROCESSING_MS]
    if AuthenticationError in classes:
        headers.append(WWW_AUTHENTICATE)
    if any(cls.retryable for cls in classes):
        headers.append(RETRY_AFTER)
    if status == 409:
        headers.append(SHOULD_RETRY)
    return {
        "description": "\n".join(f"- `{cls.code}`: {(cls.__doc__ or '').strip()}" for cls in classes),
        "headers": {header.name: _reference(header) for header in headers},
        "content": {"application/json": {"schema": _error_schema(status, classes)}},
    }


def _error_schema(status: int, classes: list[type[OpenChatError]]) -> Schema:
    """From 500 on the codes of engines and logs come as well."""
    schema = {"$ref": "#/components/schemas/ErrorAnswer"}
    if status >= 500:
        return schema
    codes = {"properties": {"code": {"enum": sorted({cls.code for cls in classes})}}}
    return {"allOf": [schema, {"properties": {"error": codes}}]}
