"""What one gateway process works with; made by the command line, handed to every route."""

from __future__ import annotations

from typing import Protocol

import msgspec
from starlette.requests import Request

from ingress.tails import Tails
from ingress.viewers import Viewers
from responses.accept import Intake
from responses.delete import Deleter
from responses.directory import ModelDirectory
from responses.end import Ender
from responses.keys import ApiKeys
from responses.sweep import Sweeper
from schemas.models import Models
from schemas.settings import Settings
from streams.connect import Broker
from streams.leases import WorkerRegistry


class CheckableArchive(Protocol):
    """What readiness needs of the archive."""

    async def check(self) -> None: ...


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a gateway."""

    settings: Settings
    models: Models
    keys: ApiKeys
    broker: Broker
    archive: CheckableArchive
    registry: WorkerRegistry
    directory: ModelDirectory
    intake: Intake
    tails: Tails
    viewers: Viewers
    ender: Ender
    deleter: Deleter
    sweeper: Sweeper


def gateway_of(request: Request) -> Gateway:
    """The gateway that serves this request."""
    gateway: Gateway = request.app.state.gateway
    return gateway


def tenant_of(request: Request) -> str:
    """Raises AuthenticationError."""
    return gateway_of(request).keys.tenant_of(request.headers.get("authorization"))
