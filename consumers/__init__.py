"""Consumer-group processes: inference and archiver."""
