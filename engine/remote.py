"""The engine `openai`: any API that speaks OpenAI's chat completions, through the official client.

The client makes the request: its retries with backoff honour Retry-After and end before the
first byte of a stream, so nothing is ever generated twice. The lines of the stream are decoded by msgspec:
the client's pydantic object per chunk costs more than everything else together.
A remote API gives no token ids, so what was begun can not be continued by another worker.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx2
import msgspec
import openai

from engine.base import Delta, FinishReason, Generation, Progress
from schemas.capabilities import Capabilities
from schemas.errors import (
    EngineError,
    SettingsError,
    UpstreamBrokeOff,
    UpstreamRefused,
    UpstreamUnavailable,
)

DEFAULT_SLOTS = 64
_CONNECT_LIMIT_S = 10.0
_RETRIES = 3
_MAX_LINE_BYTES = 4 << 20
_MAX_MESSAGE = 500
_NO_KEY = "none"
"""Sent where no key is set: servers that need none ignore it, and the client insists on one."""
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "content_filter": "content_filter"}
_OURS = frozenset({400, 404, 405, 409, 413, 415, 422})
"""Status codes that say that the request is at fault."""


class _Details(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, frozen=True):
    """What a `data:` line of the stream says; other fields are ignored."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class RemoteEngine:
    """One model of one remote API."""

    capabilities = Capabilities()
    context_length = 0

    def __init__(
        self, *, base_url: str, key: str, model: str, slots: int, timeout_s: float, args: dict[str, Any]
    ) -> None:
        """`args` are added to every request's body. Raises SettingsError for a URL that can not be used."""
        if urlsplit(base_url).scheme not in ("http", "https") or not urlsplit(base_url).hostname:
            raise SettingsError("engine openai: set OPENCHAT_OPENAI_BASE_URL, like https://host/v1")
        self._model = model
        self._args = args
        self._host = urlsplit(base_url).hostname or ""
        self._limit_name = _limit_name(self._host)
        self.capacity = slots or DEFAULT_SLOTS
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=key or _NO_KEY,
            max_retries=_RETRIES,
            timeout=httpx2.Timeout(timeout_s, connect=_CONNECT_LIMIT_S),
        )

    async def start(self, progress: Progress) -> None:
        """Nothing to load. An API that is away is no reason not to start: each request tries anew."""
        progress(f"requests go to {self._host}, model {self._model}, {self.capacity} at once")

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        """As the protocol says; without a usage chunk the deltas are counted as tokens.

        Raises UpstreamRefused, UpstreamUnavailable before the first text, UpstreamBrokeOff after it, EngineError.
        """
        finish: FinishReason | None = None
        usage: _Usage | None = None
        count = 0
        async with contextlib.aclosing(self._chunks(self._body(generation))) as chunks:
            async for chunk in chunks:
                usage = chunk.usage or usage
                for choice in chunk.choices[:1]:
                    text = (choice.delta.content or choice.delta.refusal or "") if choice.delta else ""
                    if text:
                        count += 1
                        yield Delta(text=text)
                    finish = _finish_reason(choice.finish_reason) or finish
        if finish is None:
            raise UpstreamBrokeOff("The upstream ended its stream without a finish reason.")
        yield _last_delta(finish, usage or _Usage(completion_tokens=count))

    def _body(self, generation: Generation) -> dict[str, Any]:
        request = generation.request
        wanted = {
            self._limit_name: request.max_output_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "stop": request.stop or None,
            "seed": request.seed,
            "presence_penalty": request.presence_penalty,
            "frequency_penalty": request.frequency_penalty,
            "user": request.user,
        }
        fixed = {
            "messages": [{"role": m.role, "content": m.text} for m in request.prompt_messages()],
            "stream_options": {"include_usage": True},
        }
        return fixed | {name: value for name, value in wanted.items() if value is not None} | self._args

    async def _chunks(self, body: dict[str, Any]) -> AsyncGenerator[_Chunk, None]:
        """Leaving early closes the connection, by which the upstream notices."""
        with _map_errors():
            create = self._client.chat.completions.with_streaming_response.create
            async with create(model=self._model, messages=[], stream=True, extra_body=body) as answer:
                async for line in _lines(answer.iter_bytes()):
                    if not line.startswith(b"data:"):
                        continue  # comments that keep the connection open, event names, blank lines
                    data = line[5:].strip()
                    if data == b"[DONE]":
                        return
                    yield _chunk(data)

    async def check(self) -> None:
        """A remote API that is away comes back by itself: nothing to restart here."""

    async def close(self) -> None:
        await self._client.close()


def _chunk(data: bytes) -> _Chunk:
    chunk = _decode_chunk(data)
    if chunk.error is not None:
        raise EngineError(f"The upstream failed: {_message(chunk.error)}")
    return chunk


def _limit_name(host: str) -> str:
    """OpenAI refuses `max_tokens` for its newer models; many other servers know no other name."""
    return "max_completion_tokens" if host.endswith((".openai.com", ".openai.azure.com")) else "max_tokens"


def _finish_reason(text: str | None) -> FinishReason | None:
    if text is None:
        return None
    if text not in _REASONS:
        raise EngineError(f"The upstream ended with {text[:100]!r}, which this server does not serve.")
    return _REASONS[text]


def _last_delta(finish: FinishReason, usage: _Usage) -> Delta:
    details = usage.prompt_tokens_details
    return Delta(
        finish_reason=finish,
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        cached_tokens=(details.cached_tokens or 0) if details else 0,
    )


async def _lines(parts: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Lines without their ends, LF or CRLF; raises EngineError for one that has none."""
    rest = b""
    async for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        if len(rest) > _MAX_LINE_BYTES:
            raise EngineError("The upstream sent a line that is too long.")
        for line in lines:
            yield line.rstrip(b"\r")
    yield rest


@contextlib.contextmanager
def _map_errors() -> Iterator[None]:
    """The client's errors as ours. Their messages may come from anywhere: they are cut, and never hold the key."""
    try:
        yield
    except openai.APIStatusError as exc:
        raise _status_error(exc) from exc
    except openai.APITimeoutError as exc:
        raise UpstreamUnavailable("The upstream did not answer in time.") from exc
    except openai.APIConnectionError as exc:
        raise UpstreamUnavailable("The upstream can not be reached.") from exc
    except (httpx2.HTTPError, httpx2.StreamError) as exc:  # they come while the stream is read
        raise UpstreamBrokeOff(f"The upstream broke off: {type(exc).__name__}.") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise EngineError("The upstream sent a line that is no chat completion chunk.") from exc


def _status_error(exc: openai.APIStatusError) -> EngineError | UpstreamRefused:
    status = exc.status_code
    if status in (401, 403):
        return EngineError(f"The upstream refused this server's key ({status}); set OPENAI_API_KEY.")
    if status in _OURS:
        return UpstreamRefused(f"The upstream refused the request ({status}): {_message(exc.body)}")
    if status == 429:
        return UpstreamUnavailable("The upstream has too many requests (429); try again later.")
    return UpstreamUnavailable(f"The upstream failed ({status}): {_message(exc.body)}")


def _message(error: Any) -> str:
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    return str(error)[:_MAX_MESSAGE]
