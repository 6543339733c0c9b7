"""Every typed shape that crosses a border: events, API bodies, settings, errors. msgspec and stdlib only."""
