"""What all answers have, and what many of them share."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

T = TypeVar("T")

Count = Annotated[int, Meta(ge=0)]
UnixSeconds = Annotated[int, Meta(ge=0)]
UnixMs = Annotated[int, Meta(ge=0)]
Nothing = Annotated[list[None], Meta(max_length=0)]
"""A list that the format has and that is always empty here."""


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An object of an answer: a field that is not declared is a mistake."""


class Error(Answer, frozen=True, kw_only=True):
    """What went wrong, as OpenAI writes it."""

    message: str
    """For people."""
    type: Literal["invalid_request_error", "server_error"]
    param: str | None
    """The field, query parameter or header that is wrong."""
    code: str
    """Stable, for programs."""


class ErrorAnswer(Answer, frozen=True, kw_only=True):
    """The body of every answer from 400 on."""

    error: Error


class Page(Answer, Generic[T], frozen=True, kw_only=True):
    """A part of a list."""

    object: Literal["list"]
    data: list[T]
    has_more: bool


class IdPage(Page[T], Generic[T], frozen=True, kw_only=True):
    """A part of a list, as OpenAI pages it: `last_id` is the `after` of the next page."""

    first_id: str | None
    last_id: str | None
