"""Responses and their event logs.

MySQL commits after each statement, so every step must bear being done again after a crash.
"""

from typing import Any

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.LargeBinary(16).with_variant(mysql.BINARY(16), "mysql", "mariadb")
_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    op.create_table(
        "responses",
        sa.Column("id", _ID, nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("format", sa.String(16), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("accepted_at", sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb"), nullable=False),
        sa.Column("first_text_ms", sa.Integer),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("input_tokens", sa.Integer, nullable=False),
        sa.Column("output_tokens", sa.Integer, nullable=False),
        sa.Column("cached_tokens", sa.Integer, nullable=False),
        sa.Column("error_code", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name="pk_responses"),
        if_not_exists=True,
        **_MYSQL,
    )
    if not _has_index():
        op.create_index("ix_responses_tenant_id", "responses", ["tenant", "id"])
    op.create_table(
        "response_logs",
        sa.Column("response_id", _ID, nullable=False),
        sa.Column("codec", sa.SmallInteger, nullable=False),
        sa.Column("entries", sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb"), nullable=False),
        sa.PrimaryKeyConstraint("response_id", name="pk_response_logs"),
        sa.ForeignKeyConstraint(
            ["response_id"], ["responses.id"], name="fk_response_logs_response_id", ondelete="CASCADE"
        ),
        if_not_exists=True,
        **_MYSQL,
    )


def _has_index() -> bool:
    if context.is_offline_mode():
        return False
    found = sa.inspect(op.get_bind()).get_indexes("responses")
    return any(index["name"] == "ix_responses_tenant_id" for index in found)


def downgrade() -> None:
    op.drop_table("response_logs")
    op.drop_index("ix_responses_tenant_id", table_name="responses")
    op.drop_table("responses")
