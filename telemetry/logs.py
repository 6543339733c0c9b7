"""Log lines: one event each, `key=value`, to standard error."""

from __future__ import annotations

import logging
import sys

from telemetry.request_ids import RequestIdFilter

_NOISY = ["httpx", "httpx2", "httpcore", "httpcore2", "openai", "aiosqlite", "asyncio", "alembic", "sse_starlette"]


def setup_logging(level: str) -> None:
    """Configure the root logger; called once by the command line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s%(request)s"))
    handler.addFilter(RequestIdFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
