"""Usage and cost: of the own tenant, and for administrators of all."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from ingress.errors import json_response
from ingress.gateway import admin_of, gateway_of, principal_of
from ingress.openapi.operation import Parameter, documented
from ingress.queries import MOMENT, moment
from schemas.accounts import shown_key_id
from schemas.answers.usage import UsageReport
from schemas.errors import InvalidRequest
from schemas.usage import USAGE_GROUPS, UsageGroup, UsageQuery, UsageRow

router = APIRouter()

_MOMENT = Annotated[str, Meta(pattern=MOMENT)]
_OWN = [name for name in USAGE_GROUPS if name != "tenant"]


def _groups_of(names: Sequence[str]) -> Parameter:
    """`group_by` with some of these."""
    name = f"({'|'.join(names)})"
    pattern = rf"\A({name}(,{name})*)?\Z"
    return Parameter(
        name="group_by",
        type=Annotated[str, Meta(pattern=pattern)],
        description="Some of the groups, with commas; of hour and day one.",
    )


_PERIOD = (
    Parameter(name="start", type=_MOMENT, description="ISO 8601 or unix seconds; 30 days before `end`."),
    Parameter(name="end", type=_MOMENT, description="ISO 8601 or unix seconds; now."),
)
_TENANT = Parameter(name="tenant", type=str, description="Of this tenant alone.")
_DEFAULT_SPAN = timedelta(days=30)
_LONGEST_SPAN = timedelta(days=366)


@router.get("/v1/usage")
@documented("Show usage and cost", tag="Usage", scope="usage", answers=UsageReport, query=(*_PERIOD, _groups_of(_OWN)))
async def own_usage(request: Request) -> Response:
    """Of the tenant that asks; `group_by` takes model, key, hour and day, with commas."""
    principal = await principal_of(request, "usage")
    return await _answer(request, _query(request, principal.tenant))


@router.get("/admin/usage")
@documented(
    "Show usage and cost of all",
    tag="Administration",
    scope="admin",
    answers=UsageReport,
    query=(_TENANT, *_PERIOD, _groups_of(USAGE_GROUPS)),
)
async def all_usage(request: Request) -> Response:
    """Of one tenant or of all; `group_by` takes tenant as well."""
    admin_of(request)
    return await _answer(request, _query(request, request.query_params.get("tenant")))


def _query(request: Request, tenant: str | None) -> UsageQuery:
    now = datetime.now(UTC).replace(tzinfo=None)
    end = moment(request, "end", now + timedelta(hours=1))
    start = moment(request, "start", end - _DEFAULT_SPAN)
    if not start < end <= start + _LONGEST_SPAN:
        raise InvalidRequest(f"start must be before end, by at most {_LONGEST_SPAN.days} days.", param="start")
    start = start.replace(minute=0, second=0, microsecond=0)
    return UsageQuery(start=start, end=end, group_by=_groups(request), tenant=tenant)


def _groups(request: Request) -> tuple[UsageGroup, ...]:
    text = request.query_params.get("group_by", "")
    given = text.split(",") if text else []
    allowed = USAGE_GROUPS if request.url.path.startswith("/admin") else _OWN
    if not set(given) <= set(allowed) or len(set(given)) < len(given) or {"hour", "day"} <= set(given):
        raise InvalidRequest(f"group_by takes {', '.join(allowed)}; of hour and day one.", param="group_by")
    return tuple(name for name in USAGE_GROUPS if name in given)


async def _answer(request: Request, query: UsageQuery) -> Response:
    rows = await gateway_of(request).usage.report(query)
    return json_response(
        {
            "object": "list",
            "start": f"{query.start.isoformat()}Z",
            "end": f"{query.end.isoformat()}Z",
            "group_by": query.group_by,
            "data": [_shown(row, query) for row in rows],
        }
    )


def _shown(row: UsageRow, query: UsageQuery) -> dict[str, Any]:
    groups: dict[str, Any] = {"tenant": row.tenant, "model": row.model}
    groups["key"] = shown_key_id(row.key) or None if row.key is not None else None
    groups["hour"] = groups["day"] = row.time
    return {
        "object": "usage",
        **{name: groups[name] for name in query.group_by},
        "requests": row.requests,
        "failed": row.failed,
        "input_tokens": row.input_tokens,
        "cached_tokens": row.cached_tokens,
        "output_tokens": row.output_tokens,
        "reasoning_tokens": row.reasoning_tokens,
        "cost": row.cost_micros / 1_000_000,
    }
