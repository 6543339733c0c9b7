"""What has a clock: dead letters, runs of jobs, webhooks."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Integer, SmallInteger, String, Table, Text, UniqueConstraint

from archive.tables.columns import BLOB, ID, MYSQL, TIME, metadata

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", ID, primary_key=True),
    Column("at", TIME, nullable=False),
    # the entry that could not be handled
    Column("stream", String(300), nullable=False),
    Column("entry_id", String(41), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("error", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("tenant", String(64)),
    Column("response_id", ID),
    # the entry as it stood; null: it belonged to a response that is not stored
    Column("body", BLOB),
    # when it is sent again; null: by hand alone
    Column("due_at", TIME),
    # sent again, or thrown away
    Column("settled_at", TIME),
    UniqueConstraint("stream", "entry_id"),
    Index(None, "tenant", "id"),
    Index(None, "response_id"),
    Index(None, "due_at"),
    **MYSQL,
)

job_runs = Table(
    "job_runs",
    metadata,
    Column("id", ID, primary_key=True),
    Column("task", String(100), nullable=False),
    # what it is about; a task runs once for each
    Column("subject", String(200), nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    # JSON
    Column("arguments", Text, nullable=False),
    # JSON
    Column("result", Text),
    Column("error", String(500)),
    Column("created_at", TIME, nullable=False),
    Column("due_at", TIME),
    Column("started_at", TIME),
    Column("ended_at", TIME),
    UniqueConstraint("task", "subject"),
    Index(None, "status", "due_at"),
    Index(None, "ended_at"),
    **MYSQL,
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", ID, primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("url", String(2000), nullable=False),
    # the names of the events that it gets, separated by spaces
    Column("events", String(1000), nullable=False),
    # signs what is sent (Standard Webhooks)
    Column("secret", String(200), nullable=False),
    Column("created_at", TIME, nullable=False),
    # failures since the last success
    Column("failures", Integer, nullable=False),
    Column("disabled_at", TIME),
    Index(None, "tenant", "id"),
    **MYSQL,
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    # the event's id, which the receiver sees as well
    Column("id", ID, primary_key=True),
    Column("endpoint", ID, ForeignKey("webhook_endpoints.id", ondelete="CASCADE"), nullable=False),
    Column("event", String(64), nullable=False),
    # the response or batch that it is about, as the API names it
    Column("subject", String(100), nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    # HTTP, of the last attempt
    Column("answer_status", SmallInteger),
    Column("error", String(500)),
    Column("created_at", TIME, nullable=False),
    Column("due_at", TIME),
    Column("ended_at", TIME),
    UniqueConstraint("endpoint", "event", "subject"),
    Index(None, "endpoint", "id"),
    Index(None, "status", "due_at"),
    **MYSQL,
)
