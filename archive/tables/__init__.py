"""Tables, by noun. Written for SQLite and MySQL; ids are 16 time-ordered bytes, times are UTC."""

from archive.tables.accounts import api_keys, audit, tenants
from archive.tables.columns import metadata
from archive.tables.conversations import conversation_items, conversations
from archive.tables.files import batches, files
from archive.tables.jobs import dead_letters, job_runs, webhook_deliveries, webhook_endpoints
from archive.tables.responses import NO_KEY, response_logs, response_metadata, responses, usage_hours

HEAD = "0003"
"""Newest revision of `migrations/`; lets a start skip Alembic where nothing is to do."""

__all__ = [
    "HEAD",
    "NO_KEY",
    "api_keys",
    "audit",
    "batches",
    "conversation_items",
    "conversations",
    "dead_letters",
    "files",
    "job_runs",
    "metadata",
    "response_logs",
    "response_metadata",
    "responses",
    "tenants",
    "usage_hours",
    "webhook_deliveries",
    "webhook_endpoints",
]
