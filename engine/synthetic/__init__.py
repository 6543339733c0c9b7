"""The synthetic engine: for load and fault tests."""
