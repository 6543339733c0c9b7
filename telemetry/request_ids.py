"""Which HTTP request is being served: its `x-request-id` stands on every log line that is written meanwhile.

Tasks inherit it from who starts them, so what goes on in the background for a request says so too. A worker sets the
one that its request entry names.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar

_REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")


def note_request_id(request_id: str) -> None:
    """For the current task and those that it starts from now on."""
    _REQUEST_ID.set(request_id)


def current_request_id() -> str:
    """Empty where no request is being served."""
    return _REQUEST_ID.get()


class RequestIdFilter(logging.Filter):
    """Lets everything pass, and gives each record `request`: ` request_id=…`, or nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        request_id = current_request_id()
        record.request = f" request_id={request_id}" if request_id else ""
        return True
