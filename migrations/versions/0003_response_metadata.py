"""Metadata of responses that can be changed and found, and the list of chat completions.

MySQL commits after each statement, so every step must bear being done again after a crash.
"""

from typing import Any

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
_INDEXES = (("tenant", "format", "id"), ("tenant", "format", "model", "id"))


def upgrade() -> None:
    if "metadata" not in _columns_of("responses"):
        op.add_column("responses", sa.Column("metadata", sa.Text))
    _create_indexes("responses", *_INDEXES)
    op.create_table(
        "response_metadata",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("pair", _binary(32), nullable=False),
        sa.Column("response_id", _binary(16), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "pair", "response_id", name="pk_response_metadata"),
        sa.ForeignKeyConstraint(
            ["response_id"], ["responses.id"], name="fk_response_metadata_response_id", ondelete="CASCADE"
        ),
        if_not_exists=True,
        **_MYSQL,
    )
    _create_indexes("response_metadata", ("response_id",))


def downgrade() -> None:
    op.drop_table("response_metadata")
    for columns in _INDEXES:
        op.drop_index(f"ix_responses_{'_'.join(columns)}", table_name="responses")
    with op.batch_alter_table("responses") as batch:
        batch.drop_column("metadata")


def _binary(length: int) -> Any:
    return sa.LargeBinary(length).with_variant(mysql.BINARY(length), "mysql", "mariadb")


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
