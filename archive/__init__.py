"""The archive: finished responses in SQL. The only importer of SQLAlchemy."""
