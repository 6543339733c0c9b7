"""The table of docs/http.md: every error that a client can see."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.errors import Fenced, LetterNotFound, OpenChatError, RequestError, SettingsError, all_errors

_NEVER_SHOWN = (RequestError, Fenced, SettingsError, LetterNotFound)
"""The root of some, and what only processes and the command line see."""


def errors_markdown() -> str:
    """By status, then by code."""
    rows = [_row(cls) for cls in sorted(_shown(), key=lambda cls: (cls.status, cls.code))]
    return "\n".join(["| status | code | type | | |", "|---|---|---|---|---|", *rows])


def _shown() -> Iterator[type[OpenChatError]]:
    yield from (cls for cls in all_errors() if cls not in _NEVER_SHOWN)


def _row(cls: type[OpenChatError]) -> str:
    again = "again later" if cls.retryable else ""
    return f"| {cls.status} | `{cls.code}` | `{cls().type}` | {again} | {(cls.__doc__ or '').strip()} |"
