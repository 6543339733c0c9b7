"""Log event → wire format: pure functions."""
