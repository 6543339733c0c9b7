"""Whether an engine can go on from output that is there: after a takeover, or where a fork begins."""

from __future__ import annotations

from formats.transcript import Choice
from schemas.capabilities import Capabilities
from schemas.requests import GenerationRequest


def obstacle(can: Capabilities, request: GenerationRequest, choice: Choice) -> str | None:
    """Why it can not, in words; None where it can."""
    if request.is_guided:
        return "the output is held to a grammar, whose state is not kept"
    if can.continues and not choice.untracked_text:
        return None
    if not can.continues_text:
        return "the output has no token ids" if can.continues else "the engine can not continue an output"
    if not choice.is_text_alone:
        return "the engine continues text alone, and the output is not"
    if request.tools:
        return "the engine continues no text after which a tool may be called"
    if request.has_bare_prompt:
        return "the engine continues no text behind a bare prompt"  # it has no last message to go on with
    return None
