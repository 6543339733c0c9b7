"""What the chunks of a stream say → deltas.

The lines are decoded by msgspec: the official client's pydantic object per chunk costs more than everything else
together. Chunks of chat completions and of legacy completions are one shape here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from engine.base import Delta, FinishReason
from engine.remote.errors import UpstreamFault, nonsense, stream_error
from engine.remote.tools import FunctionPart, ToolCallPart, ToolCalls
from schemas.errors import UpstreamBrokeOff
from schemas.logprobs import LikelyToken, TokenLogprob

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "tool_calls": "stop",
    "function_call": "stop",
    "length": "length",
    "content_filter": "content_filter",
}


class _Details(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


class _Likely(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int] | None = None


class _Chosen(_Likely, frozen=True):
    top_logprobs: list[_Likely] | None = None


class _Logprobs(msgspec.Struct, frozen=True):
    """Of chat completions (`content`), or of legacy completions (the rest, lists of the same length)."""

    content: list[_Chosen] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """The same by the name that other servers give it; some send both."""
    tool_calls: list[ToolCallPart] | None = None
    function_call: FunctionPart | None = None
    """The form before `tool_calls`."""


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta | None = None
    text: str | None = None
    """Legacy completions, instead of `delta`."""
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct, frozen=True):
    """What a `data:` line of the stream says; other fields are ignored."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(Chunk).decode


class Answer:
    """What one stream says, chunk by chunk."""

    def __init__(self, *, prefix_tokens: int, top_logprobs: int) -> None:
        """`prefix_tokens`: about so many tokens of the prompt are the prefix that is continued; `top_logprobs`: of
        so many other tokens they were asked for, some servers send more."""
        self._prefix_tokens = prefix_tokens
        self._top = top_logprobs
        self._tools = ToolCalls()
        self._logprobs: tuple[TokenLogprob, ...] = ()
        """Of tokens whose text has not come yet."""
        self._finish: FinishReason | None = None
        self._usage: _Usage | None = None
        self._count = 0

    def read(self, data: bytes) -> Iterator[Delta]:
        """Raises msgspec.DecodeError, UpstreamFault, UpstreamRefused, ContextTooLong."""
        chunk = _decode(data)
        if chunk.error is not None:
            raise stream_error(chunk.error)
        self._usage = chunk.usage or self._usage
        for choice in chunk.choices or ():
            for delta in self._pieces(choice):
                self._count += 1
                yield delta
            if choice.finish_reason:
                self._finish = _finish_reason(choice.finish_reason)
            return  # there is one: nobody asks for more

    def end(self) -> Iterator[Delta]:
        """What was held back, and the last delta. Raises UpstreamFault for a stream without an end."""
        if self._finish is None:
            error = UpstreamBrokeOff("The upstream ended its stream without a finish reason.")
            raise UpstreamFault(error, reason="no finish reason")
        for piece in self._tools.end():
            yield Delta(tool=piece)
        usage = self._usage or _Usage(completion_tokens=self._count)
        prompt, output = usage.prompt_tokens_details, usage.completion_tokens_details
        yield Delta(
            logprobs=self._logprobs,
            finish_reason=self._finish,
            input_tokens=max(0, (usage.prompt_tokens or 0) - self._prefix_tokens),
            output_tokens=usage.completion_tokens or 0,
            cached_tokens=(prompt.cached_tokens or 0) if prompt else 0,
            reasoning_tokens=(output.reasoning_tokens or 0) if output else 0,
        )

    def _pieces(self, choice: _Choice) -> Iterator[Delta]:
        said = choice.delta
        text = choice.text or ""
        if said is not None:
            reasoning = said.reasoning_content or said.reasoning
            if reasoning:
                yield Delta(reasoning=reasoning)
            text = said.content or said.refusal or text
        if choice.logprobs is not None and (text or not (said and _is_other(said))):
            self._logprobs += _logprobs(choice.logprobs, self._top)
        if text:
            yield Delta(text=text, logprobs=self._logprobs)
            self._logprobs = ()
        if said is not None and (said.tool_calls or said.function_call):
            yield from self._tool_pieces(said)

    def _tool_pieces(self, said: _Delta) -> Iterator[Delta]:
        calls: Sequence[ToolCallPart] = said.tool_calls or (ToolCallPart(index=0, function=said.function_call),)
        for call in calls:
            for piece in self._tools.read(call):
                yield Delta(tool=piece)


def _is_other(said: _Delta) -> bool:
    """Its tokens are no text: their logprobs belong to nothing that is shown."""
    return bool(said.reasoning_content or said.reasoning or said.tool_calls or said.function_call)


def _finish_reason(text: str) -> FinishReason:
    if text not in _REASONS:
        raise nonsense(f"The upstream ended with {text[:100]!r}, which this server does not serve.")
    return _REASONS[text]


def _logprobs(said: _Logprobs, top: int) -> tuple[TokenLogprob, ...]:
    if said.content is not None:
        return tuple(_chosen(token, top) for token in said.content)
    tops = said.top_logprobs or [None] * len(said.tokens or [])
    entries = zip(said.tokens or [], said.token_logprobs or [], tops, strict=False)
    return tuple(
        TokenLogprob(token, logprob or 0.0, top=_most_likely(likely, top)) for token, logprob, likely in entries
    )


def _most_likely(likely: dict[str, float] | None, top: int) -> tuple[LikelyToken, ...]:
    """The token that was chosen is among them, even where it is not one of the most likely."""
    pairs = sorted((likely or {}).items(), key=lambda pair: -pair[1])
    return tuple(LikelyToken(token, logprob) for token, logprob in pairs[:top])


def _chosen(said: _Chosen, top: int) -> TokenLogprob:
    likely = (said.top_logprobs or [])[:top]
    return TokenLogprob(
        token=said.token,
        logprob=said.logprob,
        bytes=_bytes(said),
        top=tuple(LikelyToken(token.token, token.logprob, _bytes(token)) for token in likely),
    )


def _bytes(said: _Likely) -> tuple[int, ...]:
    """Only those that the text does not say."""
    return () if said.bytes is None or bytes(said.bytes) == said.token.encode() else tuple(said.bytes)
