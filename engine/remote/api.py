"""One remote API that speaks OpenAI's chat completions, through the official client.

The client builds, sends and checks requests. It does not retry: engine/remote/upstreams.py does, over all upstreams of
a model and only before the first piece, so nothing is ever generated twice. A remote API gives no token ids.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai

from engine.base import Delta, Generation, Vectors
from engine.remote.bodies import chat_body, completion_body, embedding_body
from engine.remote.chunks import Answer
from engine.remote.errors import map_errors, nonsense
from engine.remote.vectors import vectors
from schemas.errors import SettingsError
from schemas.requests import EmbeddingInput

_CONNECT_LIMIT_S = 10.0
_MAX_LINE_BYTES = 4 << 20
_NO_KEY = "none"
"""Sent where no key is set: servers that need none ignore it, and the client insists on one."""
SIGN_OF_LIFE = Delta()
"""It still works on it, though nothing is there yet."""


class RemoteApi:
    """One model of one remote API."""

    def __init__(
        self, *, url: str, key: str, key_name: str, model: str, timeout_s: float, args: dict[str, Any]
    ) -> None:
        """`args` are added to every request's body; `key_name` is the variable that holds the key.

        Raises SettingsError for a URL that can not be used.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(
                "engine openai: set OPENCHAT_OPENAI_BASE_URL, or the url of each upstream, like https://host/v1"
            )
        self.name = parts.netloc.rpartition("@")[2] + parts.path.rstrip("/")
        """Where it is, for logs and metrics."""
        self.model = model
        self._key_name = key_name
        self._args = args
        self._limit_name = _limit_name(parts.hostname)
        self._client = openai.AsyncOpenAI(
            base_url=url,
            api_key=key or _NO_KEY,
            max_retries=0,
            timeout=httpx2.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_LIMIT_S)),
        )

    async def generate(self, generation: Generation, model: str) -> AsyncGenerator[Delta, None]:
        """The deltas, and an empty one for each comment by which the upstream says that it still works on it.

        Without a usage chunk the pieces are counted as tokens. Leaving early closes the connection, by which the
        upstream notices. Raises UpstreamFault, UpstreamRefused, ContextTooLong, WorkerLost.
        """
        answer = Answer(
            prefix_tokens=generation.prefix_pieces if generation.prefix_text else 0,
            top_logprobs=generation.request.top_logprobs,
        )
        with map_errors(self._key_name):
            async with self._opened(generation, model) as response:
                async for line in _lines(response.iter_bytes()):
                    if line.startswith(b"data:"):
                        data = line[5:].strip()
                        if data == b"[DONE]":
                            break
                        for delta in answer.read(data):
                            yield delta
                    elif line.startswith(b":"):
                        yield SIGN_OF_LIFE
            for delta in answer.end():
                yield delta

    async def embed(self, embedding: EmbeddingInput) -> Vectors:
        """Raises as `generate`."""
        with map_errors(self._key_name):
            response = await self._client.embeddings.with_raw_response.create(
                model=self.model, input=[], extra_body=embedding_body(embedding) | self._args
            )
            return vectors(response.content, embedding)

    async def close(self) -> None:
        await self._client.close()

    def _opened(
        self, generation: Generation, model: str
    ) -> contextlib.AbstractAsyncContextManager[openai.AsyncAPIResponse[Any]]:
        """The bodies are ours: the client's own would cost a walk over every message."""
        if generation.request.prompt is not None:
            complete = self._client.completions.with_streaming_response.create
            return complete(model=model, prompt="", stream=True, extra_body=completion_body(generation) | self._args)
        chat = self._client.chat.completions.with_streaming_response.create
        body = chat_body(generation, self._limit_name) | self._args
        return chat(model=model, messages=[], stream=True, extra_body=body)


def _limit_name(host: str) -> str:
    """OpenAI refuses `max_tokens` for its newer models; many other servers know no other name."""
    return "max_completion_tokens" if host.endswith((".openai.com", ".openai.azure.com")) else "max_tokens"


async def _lines(parts: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Lines without their ends, LF or CRLF; raises UpstreamFault for one that has none."""
    rest = b""
    async for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        if len(rest) > _MAX_LINE_BYTES:
            raise nonsense("The upstream sent a line that is too long.")
        for line in lines:
            yield line.rstrip(b"\r")
    yield rest
