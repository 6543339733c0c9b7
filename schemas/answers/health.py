"""Health and readiness."""

from __future__ import annotations

from typing import Literal

from schemas.answers.common import Answer


class Health(Answer, frozen=True, kw_only=True):
    status: Literal["ok"]


class Ready(Answer, frozen=True, kw_only=True):
    status: Literal["ready"]


class NotReady(Answer, frozen=True, kw_only=True):
    status: Literal["not ready"]
    missing: dict[str, str]
    """What is missing, and how."""
