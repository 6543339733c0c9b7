"""An engine that obeys, for the suites of clients: no model is behind it."""
