"""What an engine can do, and what a request needs of it."""

from __future__ import annotations

import msgspec

from schemas.requests import GenerationRequest, ImageContent


class Capabilities(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What one engine with one model can do. Workers announce it; the gateway refuses what needs more."""

    generates: bool = True
    """Text from messages; false for a model that only embeds."""
    continues: bool = False
    """It can go on from a prefix of token ids. Nothing that a caller asks for: see the takeover policy."""
    continues_text: bool = False
    """It can go on from a prefix of text, without token ids, if the prefix is nothing but text."""
    completions: bool = False
    """Text from a bare prompt, without a chat template."""
    tools: bool = False
    json_schema: bool = False
    """Output that is held to JSON or to a JSON schema."""
    logprobs: bool = False
    images: bool = False
    embeddings: bool = False
    logit_bias: bool = False
    reasoning_effort: bool = False
    verbosity: bool = False

    @property
    def names(self) -> list[str]:
        """Those that it has, for people."""
        return [field for field in self.__struct_fields__ if getattr(self, field)]

    def shared_with(self, other: Capabilities) -> Capabilities:
        """What both can do."""
        both = {name: getattr(self, name) and getattr(other, name) for name in self.__struct_fields__}
        return Capabilities(**both)

    def missing_for(self, request: GenerationRequest) -> str | None:
        """The first capability that the request needs and that is not here."""
        return next(iter(self.all_missing_for(request)), None)

    def all_missing_for(self, request: GenerationRequest) -> list[str]:
        """Every capability that the request needs and that is not here."""
        return [name for name in needed_by(request) if not getattr(self, name)]


def needed_by(request: GenerationRequest) -> list[str]:
    """The capabilities without which a request can not be served, by field name of Capabilities."""
    if request.embed is not None:
        return ["embeddings"]
    needs = {
        "generates": True,
        "completions": request.has_bare_prompt,
        "tools": bool(request.tools) and request.tool_choice != "none",
        "json_schema": request.output_format is not None,
        "logprobs": request.logprobs,
        "images": any(isinstance(part, ImageContent) for message in request.messages for part in message.parts),
        "logit_bias": bool(request.logit_bias),
        "reasoning_effort": request.reasoning_effort is not None,
        "verbosity": request.verbosity not in (None, "medium"),
    }
    return [name for name, is_needed in needs.items() if is_needed]
