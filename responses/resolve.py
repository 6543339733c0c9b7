"""From an API body to a GenerationRequest: names canonical, messages plain."""

from __future__ import annotations

from schemas.api import BodyMessage, ChatBody, ResponsesBody
from schemas.errors import InvalidRequest
from schemas.requests import GenerationRequest, Message


def resolve_chat(body: ChatBody, *, model: str, default_max: int, deadline_at_ms: int) -> GenerationRequest:
    """Raises InvalidRequest where parameters contradict each other."""
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise InvalidRequest("Give max_completion_tokens or max_tokens, not both.", param="max_tokens")
    return GenerationRequest(
        model=model,
        messages=_messages(body.messages),
        max_output_tokens=body.max_completion_tokens or body.max_tokens or default_max or None,
        temperature=body.temperature,
        top_p=body.top_p,
        stop=[body.stop] if isinstance(body.stop, str) else body.stop or [],
        seed=body.seed,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        metadata=body.metadata,
        user=body.user,
        include_usage=body.stream_options.include_usage,
        deadline_at_ms=deadline_at_ms,
    )


def resolve_responses(body: ResponsesBody, *, model: str, default_max: int, deadline_at_ms: int) -> GenerationRequest:
    return GenerationRequest(
        model=model,
        messages=[Message("user", body.input)] if isinstance(body.input, str) else _messages(body.input),
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens or default_max or None,
        temperature=body.temperature,
        top_p=body.top_p,
        metadata=body.metadata,
        user=body.user,
        background=body.background,
        deadline_at_ms=deadline_at_ms,
    )


def _messages(messages: list[BodyMessage]) -> list[Message]:
    return [Message(m.role, _text(m)) for m in messages]


def _text(message: BodyMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    return "".join(part.text for part in message.content)
