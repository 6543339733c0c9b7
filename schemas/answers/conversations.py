"""Conversations."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from schemas.answers.common import Answer, IdPage, UnixSeconds

ConversationId = Annotated[str, Meta(pattern=r"\Aconv_[0-9a-f]{32}\Z")]


class ConversationObject(Answer, frozen=True, kw_only=True):
    """A conversation without its items."""

    id: ConversationId
    object: Literal["conversation"]
    created_at: UnixSeconds
    metadata: dict[str, str]


class DeletedConversation(Answer, frozen=True, kw_only=True):
    id: ConversationId
    object: Literal["conversation.deleted"]
    deleted: Literal[True]


class ConversationPage(IdPage[ConversationObject], frozen=True, kw_only=True):
    """A part of the list of conversations."""
