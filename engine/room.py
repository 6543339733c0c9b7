"""What the context leaves for an answer."""

from __future__ import annotations

from schemas.errors import ContextTooLong


def room_for(*, prompt: int, prefix: int, context: int, limit: int | None) -> int:
    """Tokens that may still be generated, 0 where the maximum is reached.

    `prefix`: tokens of the answer that are there; `limit`: the maximum of the whole answer, None where there is none.
    Raises ContextTooLong, with both numbers, where not even one fits.
    """
    room = context - prompt - prefix
    if room < 1:
        raise ContextTooLong(
            f"The prompt has {prompt} tokens; with {prefix} generated ones it does not fit "
            f"the context of {context} tokens."
        )
    return room if limit is None else max(0, min(room, limit - prefix))
