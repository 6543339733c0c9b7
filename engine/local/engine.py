"""The local engine: a real model on the CPU, by llama.cpp in a child process.

A crash of native code is then an error of the engine and not the end of the worker.
Prompts go to the child as token ids, and its deltas carry ids, so that a response can
be continued anywhere from prompt ids + ids in the log.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from engine.base import Delta, Generation, Progress, Vectors
from engine.local.deltas import Completion, DeltaStream
from engine.local.logprobs import LogprobReader
from engine.local.model import built_in_path, check_file, check_memory
from engine.local.schema import Schemas
from engine.local.server import LlamaServer
from engine.local.tokens import PieceTable
from engine.needs import refuse_what_is_missing
from engine.room import room_for
from schemas.capabilities import Capabilities
from schemas.errors import CapabilityMissing, ContextTooLong, EngineDead, InvalidRequest
from schemas.requests import EmbeddingInput, GenerationRequest, Message

DEFAULT_SLOTS = 8
_SYSTEM_PROMPT = "You are a helpful assistant."
"""For the built-in model where the client sends none: with its own default it answers worse."""
_BUILT_IN_TEMPERATURE = 0.0
"""For the built-in model where the client sends none: a 135M model strays from the subject when it samples."""
_GENERATES = Capabilities(continues=True, completions=True, json_schema=True, logprobs=True, logit_bias=True)
_EMBEDS = Capabilities(generates=False, embeddings=True)


class LocalEngine:
    """One GGUF model; `slots` generations share its batch."""

    def __init__(
        self, *, path: str, slots: int, threads: int, context: int, args: dict[str, Any], embeds: bool = False
    ) -> None:
        self._path = path
        self._is_built_in = not path
        self._threads = threads or max(1, (os.cpu_count() or 2) - 1)
        self._args = args
        self._embeds = embeds
        self._server = LlamaServer()
        self._pieces = PieceTable(self._server.post)
        self._schemas = Schemas(self._server)
        self._vocabulary = 0
        self.capabilities = _EMBEDS if embeds else _GENERATES
        self.context_length = context
        self.capacity = slots or DEFAULT_SLOTS

    async def start(self, progress: Progress) -> None:
        path = built_in_path() if self._is_built_in else Path(self._path)
        size = check_file(path)
        check_memory(size, self.capacity * self.context_length)
        progress(f"loading {path.name}, {size / 1e6:.0f} MB, {self._threads} threads, {self.capacity} slots")
        began = time.monotonic()
        settings = {
            "path": str(path),
            "slots": self.capacity,
            "context": self.context_length,
            "threads": self._threads,
            "embeds": self._embeds,
            "args": self._args,
        }
        await self._server.start(settings)
        self._vocabulary = await self._server.vocabulary()
        progress(f"loaded in {time.monotonic() - began:.1f} s")

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        refuse_what_is_missing(self.capabilities, generation.request)
        prompt = await self._prompt_ids(generation.request)
        left = room_for(
            prompt=len(prompt),
            prefix=len(generation.prefix_tokens),
            context=self.context_length,
            limit=generation.request.max_output_tokens,
            least=generation.least_room,
        )
        if not left:
            yield Delta(finish_reason="length", input_tokens=len(prompt))
            return
        completion = await self._completion(generation, prompt, left)
        stream = DeltaStream(self._server, self._pieces, completion)
        async with contextlib.aclosing(stream.read()) as deltas:
            async for delta in deltas:
                yield delta

    async def _prompt_ids(self, request: GenerationRequest) -> list[int]:
        if isinstance(request.prompt, list):
            ids = self._checked_ids(request.prompt)
        else:
            text = await self._templated(request) if request.prompt is None else request.prompt
            ids = await self._tokenised(text)
        if not ids:
            raise InvalidRequest("The prompt is empty.", param="prompt")
        return ids

    def _checked_ids(self, ids: list[int]) -> list[int]:
        if not all(0 <= token < self._vocabulary for token in ids):
            raise InvalidRequest(f"The token ids of this model are 0 to {self._vocabulary - 1}.", param="prompt")
        return ids

    async def _templated(self, request: GenerationRequest) -> str:
        messages = [_plain(message) for message in request.prompt_messages()]
        if self._is_built_in and not any(m["role"] == "system" for m in messages):
            messages.insert(0, {"role": "system", "content": _SYSTEM_PROMPT})
        prompt: str = (await self._server.post("/apply-template", {"messages": messages}))["prompt"]
        return prompt

    async def _tokenised(self, text: str) -> list[int]:
        asked = {"content": text, "add_special": True, "parse_special": True}
        ids: list[int] = (await self._server.post("/tokenize", asked))["tokens"]
        return ids

    async def _completion(self, generation: Generation, prompt: list[int], limit: int) -> Completion:
        request, prefix = generation.request, list(generation.prefix_tokens)
        before = [*prompt, *prefix]
        # what the log holds ends with a whole character; what a caller gives as ids may not
        end = prefix or (before if isinstance(request.prompt, list) else [])
        return Completion(
            body=await self._body(request, before, limit),
            input_tokens=len(prompt),
            open_end=await self._pieces.open_end(end) if end else [],
            logprobs=self._logprob_reader(request, before) if request.logprobs else None,
        )

    def _logprob_reader(self, request: GenerationRequest, before: list[int]) -> LogprobReader:
        return LogprobReader(self._server, self._pieces, list(before), request.top_logprobs)

    async def _body(self, request: GenerationRequest, ids: list[int], limit: int) -> dict[str, Any]:
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
            "n_probs": max(1, request.top_logprobs) if request.logprobs else None,
            "json_schema": await self._schemas.of(request.output_format) if request.output_format else None,
            "logit_bias": self._bias(request.logit_bias) or None,
        }
        fixed = {"prompt": ids, "n_predict": limit, "stream": True, "return_tokens": True, "cache_prompt": True}
        return fixed | {name: value for name, value in wanted.items() if value is not None}

    def _bias(self, given: dict[int, float]) -> list[list[float]]:
        """llama.cpp leaves out what is no token, without a word. Raises InvalidRequest for it."""
        if not all(token < self._vocabulary for token in given):
            raise InvalidRequest(f"The token ids of this model are 0 to {self._vocabulary - 1}.", param="logit_bias")
        return [[token, bias] for token, bias in given.items()]

    async def embed(self, embedding: EmbeddingInput) -> Vectors:
        """The mean over the tokens of each input, of length one."""
        if not self.capabilities.embeddings:
            raise CapabilityMissing("The model is not loaded to embed.", param="embeddings")
        if embedding.dimensions is not None:
            raise InvalidRequest("dimensions: this model can not shorten its vectors.", param="dimensions")
        inputs = [
            self._checked_ids(one) if isinstance(one, list) else await self._tokenised(one) for one in embedding.inputs
        ]
        for ids in inputs:
            self._check_length(ids)
        found = await self._server.post("/v1/embeddings", {"input": inputs})
        rows = sorted(found["data"], key=lambda row: int(row["index"]))
        return Vectors([row["embedding"] for row in rows], sum(len(ids) for ids in inputs))

    def _check_length(self, ids: list[int]) -> None:
        if not ids:
            raise InvalidRequest("An input is empty.", param="input")
        if len(ids) > self.context_length:
            raise ContextTooLong(
                f"An input has {len(ids)} tokens and does not fit the context of {self.context_length} tokens."
            )

    async def check(self) -> None:
        if not self._server.is_running:
            raise EngineDead("llama.cpp is not running")
        await self._server.post("/tokenize", {"content": ""})

    async def close(self) -> None:
        await self._server.close()


def _plain(message: Message) -> dict[str, str]:
    return {"role": "system" if message.role == "developer" else message.role, "content": message.text}
