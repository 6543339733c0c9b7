"""Alembic migrations of the archive.

A new one is written by hand: take `versions/0001_responses.py` as the pattern, name its
`down_revision`, change `archive/tables` to match and raise HEAD there. The tests in
`tests/migration` hold all three together. Alter tables with `op.batch_alter_table`: SQLite
can not do it in place.
"""
