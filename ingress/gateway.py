"""What one gateway process works with; made by the command line, handed to every route."""

from __future__ import annotations

from typing import Protocol

import msgspec
from starlette.requests import Request

from archive.audit import AuditLog
from archive.usage_reports import UsageReports
from ingress.tails import Tails
from ingress.viewers import Viewers
from responses.accept import Intake
from responses.accounts import Accounts
from responses.authenticate import AdminKeys, Authenticator
from responses.conversation_edits import ConversationEditor
from responses.conversations import ConversationReader
from responses.delete import Deleter
from responses.directory import ModelDirectory
from responses.end import Ender
from responses.history import Histories
from responses.images import RemoteImages
from responses.references import References
from responses.retention import Retention
from responses.stored import StoredResponses
from responses.sweep import Sweeper
from responses.upkeep import AccountUpkeep
from schemas.accounts import Principal, Scope
from schemas.errors import PermissionDenied
from schemas.models import Models
from schemas.settings import Settings
from streams.chats import Chats
from streams.connect import Broker
from streams.leases import WorkerRegistry


class CheckableArchive(Protocol):
    """What readiness needs of the archive."""

    async def check(self) -> None: ...


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a gateway."""

    settings: Settings
    models: Models
    authenticator: Authenticator
    admin_keys: AdminKeys
    accounts: Accounts
    upkeep: AccountUpkeep
    usage: UsageReports
    audit: AuditLog
    broker: Broker
    archive: CheckableArchive
    registry: WorkerRegistry
    directory: ModelDirectory
    intake: Intake
    images: RemoteImages
    histories: Histories
    references: References
    stored: StoredResponses
    conversations: ConversationReader
    editor: ConversationEditor
    chats: Chats
    tails: Tails
    viewers: Viewers
    ender: Ender
    deleter: Deleter
    sweeper: Sweeper
    retention: Retention


def gateway_of(request: Request) -> Gateway:
    """The gateway that serves this request."""
    gateway: Gateway = request.app.state.gateway
    return gateway


async def principal_of(request: Request, scope: Scope) -> Principal:
    """Who asks, if the key may do this. Raises AuthenticationError, PermissionDenied; BrokerError, ArchiveError."""
    principal = await gateway_of(request).authenticator.principal(request.headers.get("authorization"))
    if scope not in principal.scopes:
        raise PermissionDenied(f"This API key lacks the scope {scope!r}; it has: {', '.join(principal.scopes)}.")
    return principal


def admin_of(request: Request) -> str:
    """The administrator who asks, as the audit names him. Raises AuthenticationError."""
    return gateway_of(request).admin_keys.actor(request.headers.get("authorization"))
