"""What the context leaves for an answer."""

from __future__ import annotations

from schemas.errors import ContextTooLong


def room_for(*, prompt: int, prefix: int, context: int, limit: int | None, least: int = 1) -> int:
    """Tokens that may still be generated, 0 where the maximum is reached or the answer has filled the context.

    `prefix`: tokens of the answer that are there; `limit`: the maximum of the whole answer, None where there is none;
    `least`: so many must fit an answer that has not begun. Raises ContextTooLong, with both numbers.
    """
    room = context - prompt - prefix
    if room < (0 if prefix else least):
        raise ContextTooLong(
            f"The prompt has {prompt} tokens; with {prefix} generated ones it does not fit "
            f"the context of {context} tokens.",
            tokens=prompt,
            context=context,
        )
    return room if limit is None else max(0, min(room, limit - prefix))
