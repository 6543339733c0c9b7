"""Alembic's environment: the connection comes from `archive.migrate`."""

from alembic import context

from archive.tables import metadata

connection = context.config.attributes["connection"]
if connection is None:
    context.configure(
        dialect_name=context.config.attributes["dialect"], target_metadata=metadata, as_sql=True, literal_binds=True
    )
else:
    # batch mode: SQLite can not alter tables in place
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, compare_type=True)
with context.begin_transaction():
    context.run_migrations()
