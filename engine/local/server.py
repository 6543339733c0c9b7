"""llama.cpp's HTTP server in a child process (engine/local/child.py), and the ways to ask it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec

from schemas.errors import ContextTooLong, EngineDead, EngineError, InvalidRequest, OpenChatError, SettingsError

_START_LIMIT_S = 300.0
_STOP_LIMIT_S = 5.0
_READ_LIMIT_S = 600.0
_KEEP_ALIVE_S = 2.0
"""Below the five seconds after which llama.cpp closes an idle connection: a request must not meet that."""


class Likely(msgspec.Struct, frozen=True):
    """A token that could have stood there."""

    id: int
    token: str = ""
    bytes: list[int] = []
    logprob: float = 0.0


class Probability(msgspec.Struct, frozen=True):
    """How likely a sampled token was; its text is left out: llama.cpp gives that of several tokens there."""

    id: int
    logprob: float = 0.0
    top: list[Likely] = msgspec.field(name="top_logprobs", default=[])


class Chunk(msgspec.Struct, frozen=True):
    """What a line of the /completion stream says; other fields are ignored."""

    content: str = ""
    tokens: list[int] = []
    probabilities: list[Probability] = msgspec.field(name="completion_probabilities", default=[])
    stop: bool = False
    stop_type: str = ""
    tokens_predicted: int = 0
    error: dict[str, Any] | None = None
    timings: dict[str, Any] = {}


_decode_chunk = msgspec.json.Decoder(Chunk).decode


class LlamaServer:
    """One child with one model. Raises EngineDead where it is gone, EngineError or a RequestError where it refuses."""

    def __init__(self) -> None:
        self.process: asyncio.subprocess.Process | None = None
        self._http: httpx.AsyncClient | None = None

    async def start(self, settings: dict[str, Any]) -> None:
        """Raises SettingsError where the settings are at fault (engine/local/child.py reads them), or EngineDead."""
        key = secrets.token_hex(16)
        line = await self._spawn(settings | {"key": key})
        reply = msgspec.json.decode(line) if line else {"error": "llama.cpp crashed while it loaded the model"}
        if "error" in reply:
            await self.close()
            text = f"{settings['path']}: {reply['error']}"
            raise SettingsError(text) if line else EngineDead(text)
        self._http = httpx.AsyncClient(
            base_url=reply["address"],
            headers={"authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(10.0, read=_READ_LIMIT_S, pool=None),
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=settings["slots"], keepalive_expiry=_KEEP_ALIVE_S
            ),
            trust_env=False,
        )

    async def _spawn(self, settings: dict[str, Any]) -> bytes:
        self.process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "engine.local.child"),
            cwd=Path(__file__).parents[2],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(msgspec.json.encode(settings) + b"\n")
            await process.stdin.drain()
            async with asyncio.timeout(_START_LIMIT_S):
                return await process.stdout.readline()
        except (TimeoutError, ConnectionError) as exc:
            await self.close()
            raise EngineDead("llama.cpp did not load the model in time") from exc

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """The answer's JSON. Nothing that is posted changes anything, so a lost connection is tried once more."""
        with _map_errors():
            try:
                answer = await self._client.post(path, json=body)
            except (httpx.RemoteProtocolError, httpx.ReadError):
                if not self.is_running:
                    raise
                answer = await self._client.post(path, json=body)
            if answer.status_code != 200:
                raise _native_error(answer.content)
            return msgspec.json.decode(answer.content)

    async def vocabulary(self) -> int:
        """How many token ids the model has."""
        with _map_errors():
            answer = await self._client.get("/v1/models")
            count: int = msgspec.json.decode(answer.content)["data"][0]["meta"]["n_vocab"]
            return count

    async def chunks(self, body: dict[str, Any]) -> AsyncGenerator[Chunk, None]:
        """The stream of /completion. Leaving it early closes its connection, which frees the slot."""
        # a connection that carried a stream is closed by llama.cpp, now and then after it was used again
        headers = {"connection": "close"}
        with _map_errors():
            async with self._client.stream("POST", "/completion", json=body, headers=headers) as answer:
                if answer.status_code != 200:
                    raise _native_error(await answer.aread())
                async for line in answer.aiter_lines():
                    if line.startswith("data: "):
                        chunk = _decode_chunk(line[6:])
                        if chunk.error is not None:
                            raise EngineError(str(chunk.error.get("message", chunk.error)))
                        yield chunk
                    elif line.startswith("error: "):
                        raise _native_error(line[7:].encode())

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    @property
    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            raise EngineDead("the local engine is not running")
        return self._http

    async def close(self) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()
        process, self.process = self.process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()  # which ends the child
        try:
            async with asyncio.timeout(_STOP_LIMIT_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()


@contextlib.contextmanager
def _map_errors() -> Iterator[None]:
    try:
        yield
    except httpx.TimeoutException as exc:
        raise EngineDead(f"llama.cpp does not answer: {exc}") from exc
    except httpx.HTTPError as exc:
        raise EngineDead(f"llama.cpp died: {exc}") from exc
    except msgspec.DecodeError as exc:
        raise EngineError(f"llama.cpp answered nonsense: {exc}") from exc


def _native_error(raw: bytes) -> OpenChatError:
    try:
        error = msgspec.json.decode(raw)
        error = error.get("error", error)
        message = str(error.get("message", error))
    except (msgspec.DecodeError, AttributeError):
        return EngineError(raw[:500].decode("utf-8", "replace"))
    if error.get("type") == "exceed_context_size_error":
        return ContextTooLong(message)
    if error.get("type") == "invalid_request_error":
        return InvalidRequest(message)
    return EngineError(message)
