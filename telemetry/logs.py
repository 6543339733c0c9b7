"""Log lines: one event each, `key=value`, to standard error."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar

_NOISY = ["httpx", "httpx2", "httpcore", "httpcore2", "openai", "aiosqlite", "asyncio", "alembic", "sse_starlette"]

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The HTTP request that is being served, and what was started for it; empty: none."""


class _WithRequest(logging.Filter):
    """`request=…` at the end of what is said while a request is served."""

    def filter(self, record: logging.LogRecord) -> bool:
        request_id = REQUEST_ID.get()
        record.request = f" request={request_id}" if request_id else ""
        return True


def setup_logging(level: str) -> None:
    """Configure the root logger; called once by the command line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_WithRequest())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s%(request)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
