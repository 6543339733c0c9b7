"""More of each response; usage, accounts, conversations, jobs, files.

MySQL commits after each statement, so every step must bear being done again after a crash.
"""

from typing import Any

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
_BLOB = sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")
_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}

_ENDED_AT = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f', accepted_at, (duration_ms / 1000.0) || ' seconds') || '000'",
    "mysql": "accepted_at + INTERVAL duration_ms * 1000 MICROSECOND",
}
_RESPONSE_INDEXES = (("conversation", "id"), ("parent",), ("tenant", "ended_at"))
_TABLES = (
    "usage_hours",
    "tenants",
    "api_keys",
    "audit",
    "conversations",
    "conversation_items",
    "dead_letters",
    "job_runs",
    "webhook_endpoints",
    "webhook_deliveries",
    "files",
    "batches",
)
"""New ones, in the order in which they are made."""


def upgrade() -> None:
    _upgrade_responses()
    _create_usage()
    _create_accounts()
    _create_conversations()
    _create_jobs()
    _create_webhooks()
    _create_files()


def downgrade() -> None:
    for table in reversed(_TABLES):
        op.drop_table(table)
    for columns in _RESPONSE_INDEXES:
        op.drop_index(f"ix_responses_{'_'.join(columns)}", table_name="responses")
    with op.batch_alter_table("responses") as batch:
        for column in _response_columns():
            batch.drop_column(column.name)


def _response_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("engine", sa.String(64), nullable=False, server_default=sa.text("''")),
        sa.Column("finish_reason", sa.String(32)),
        sa.Column("reasoning_tokens", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("cost_micros", sa.BigInteger),
        sa.Column("error_message", sa.String(500)),
        _id("parent"),
        _id("retry_of"),
        _id("conversation"),
        _id("key_id"),
        sa.Column("lane", sa.String(16), nullable=False, server_default="interactive"),
        sa.Column("is_stored", sa.Boolean, nullable=False, server_default=sa.text("1")),
        _time("ended_at"),
        sa.Column("write_id", _binary(8)),
    ]


def _upgrade_responses() -> None:
    known = _columns_of("responses")
    for column in _response_columns():
        if column.name not in known:
            op.add_column("responses", column)
    dialect = "sqlite" if op.get_context().dialect.name == "sqlite" else "mysql"
    op.execute(f"UPDATE responses SET ended_at = {_ENDED_AT[dialect]} WHERE ended_at IS NULL")
    with op.batch_alter_table("responses") as batch:
        batch.alter_column("ended_at", existing_type=_TIME, nullable=False)
    _create_indexes("responses", *_RESPONSE_INDEXES)


def _create_usage() -> None:
    _create_table(
        "usage_hours",
        sa.Column("tenant", sa.String(64), nullable=False),
        _time("hour", nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        _id("key_id", nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.Column("cost_micros", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "hour", "model", "key_id", name="pk_usage_hours"),
    )
    _create_indexes("usage_hours", ("hour",))


def _create_accounts() -> None:
    _create_table(
        "tenants",
        sa.Column("name", sa.String(64), nullable=False),
        _time("created_at", nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("retention_days", sa.Integer),
        sa.Column("limits", sa.Text),
        _time("disabled_at"),
        sa.PrimaryKeyConstraint("name", name="pk_tenants"),
    )
    _create_table(
        "api_keys",
        _id("id", nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("hash", _binary(32), nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("scopes", sa.String(200), nullable=False),
        sa.Column("limits", sa.Text),
        _time("created_at", nullable=False),
        _time("expires_at"),
        _time("last_used_at"),
        _time("revoked_at"),
        _id("rotated_to"),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("hash", name="uq_api_keys_hash"),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.name"], name="fk_api_keys_tenant"),
    )
    _create_indexes("api_keys", ("tenant", "id"))
    _create_table(
        "audit",
        _id("id", nullable=False),
        _time("at", nullable=False),
        sa.Column("actor", sa.String(100), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(64)),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    _create_indexes("audit", ("tenant", "id"), ("at",))


def _create_conversations() -> None:
    _create_table(
        "conversations",
        _id("id", nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        _time("created_at", nullable=False),
        _time("updated_at", nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_conversations"),
    )
    _create_indexes("conversations", ("tenant", "id"), ("tenant", "updated_at"))
    _create_table(
        "conversation_items",
        _id("conversation", nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("item", sa.String(100), nullable=False),
        _id("response_id"),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("body", _BLOB, nullable=False),
        _time("created_at", nullable=False),
        sa.PrimaryKeyConstraint("conversation", "position", name="pk_conversation_items"),
        sa.UniqueConstraint("conversation", "item", name="uq_conversation_items_conversation_item"),
        sa.ForeignKeyConstraint(
            ["conversation"], ["conversations.id"], name="fk_conversation_items_conversation", ondelete="CASCADE"
        ),
    )
    _create_indexes("conversation_items", ("response_id",))


def _create_jobs() -> None:
    _create_table(
        "dead_letters",
        _id("id", nullable=False),
        _time("at", nullable=False),
        sa.Column("stream", sa.String(300), nullable=False),
        sa.Column("entry_id", sa.String(41), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("tenant", sa.String(64)),
        _id("response_id"),
        sa.Column("body", _BLOB),
        _time("due_at"),
        _time("settled_at"),
        sa.PrimaryKeyConstraint("id", name="pk_dead_letters"),
        sa.UniqueConstraint("stream", "entry_id", name="uq_dead_letters_stream_entry_id"),
    )
    _create_indexes("dead_letters", ("tenant", "id"), ("response_id",), ("due_at",))
    _create_table(
        "job_runs",
        _id("id", nullable=False),
        sa.Column("task", sa.String(100), nullable=False),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("arguments", sa.Text, nullable=False),
        sa.Column("result", sa.Text),
        sa.Column("error", sa.String(500)),
        _time("created_at", nullable=False),
        _time("due_at"),
        _time("started_at"),
        _time("ended_at"),
        sa.PrimaryKeyConstraint("id", name="pk_job_runs"),
        sa.UniqueConstraint("task", "subject", name="uq_job_runs_task_subject"),
    )
    _create_indexes("job_runs", ("status", "due_at"), ("ended_at",))


def _create_webhooks() -> None:
    _create_table(
        "webhook_endpoints",
        _id("id", nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("url", sa.String(2000), nullable=False),
        sa.Column("events", sa.String(1000), nullable=False),
        sa.Column("secret", sa.String(200), nullable=False),
        _time("created_at", nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        _time("disabled_at"),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_endpoints"),
    )
    _create_indexes("webhook_endpoints", ("tenant", "id"))
    _create_table(
        "webhook_deliveries",
        _id("id", nullable=False),
        _id("endpoint", nullable=False),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(100), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("answer_status", sa.SmallInteger),
        sa.Column("error", sa.String(500)),
        _time("created_at", nullable=False),
        _time("due_at"),
        _time("ended_at"),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
        sa.UniqueConstraint("endpoint", "event", "subject", name="uq_webhook_deliveries_endpoint_event_subject"),
        sa.ForeignKeyConstraint(
            ["endpoint"], ["webhook_endpoints.id"], name="fk_webhook_deliveries_endpoint", ondelete="CASCADE"
        ),
    )
    _create_indexes("webhook_deliveries", ("endpoint", "id"), ("status", "due_at"))


def _create_files() -> None:
    _create_table(
        "files",
        _id("id", nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("purpose", sa.String(32), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("hash", _binary(32)),
        sa.Column("location", sa.String(500), nullable=False),
        _time("created_at", nullable=False),
        _time("expires_at"),
        sa.PrimaryKeyConstraint("id", name="pk_files"),
    )
    _create_indexes("files", ("tenant", "id"), ("expires_at",))
    _create_table(
        "batches",
        _id("id", nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        _id("key_id"),
        sa.Column("endpoint", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        _id("input_file", nullable=False),
        _id("output_file"),
        _id("error_file"),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("completed", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("errors", sa.Text),
        sa.Column("metadata", sa.Text, nullable=False),
        _time("created_at", nullable=False),
        _time("expires_at", nullable=False),
        _time("started_at"),
        _time("cancelled_at"),
        _time("ended_at"),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
    )
    _create_indexes("batches", ("tenant", "id"), ("status", "expires_at"))


def _binary(length: int) -> Any:
    return sa.LargeBinary(length).with_variant(mysql.BINARY(length), "mysql", "mariadb")


def _id(name: str, *, nullable: bool = True) -> sa.Column[Any]:
    return sa.Column(name, _binary(16), nullable=nullable)


def _time(name: str, *, nullable: bool = True) -> sa.Column[Any]:
    return sa.Column(name, _TIME, nullable=nullable)


def _create_table(name: str, *columns: Any) -> None:
    op.create_table(name, *columns, if_not_exists=True, **_MYSQL)


def _create_indexes(table: str, *indexes: tuple[str, ...]) -> None:
    known: set[str | None] = set()
    if not context.is_offline_mode():
        known = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}
    for columns in indexes:
        if (name := f"ix_{table}_{'_'.join(columns)}") not in known:
            op.create_index(name, table, list(columns))


def _columns_of(table: str) -> set[str]:
    if context.is_offline_mode():
        return set()
    return {column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)}
