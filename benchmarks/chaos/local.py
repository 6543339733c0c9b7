"""The same with a real model: its greedy text must be the text of an uninterrupted run."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import msgspec

from benchmarks.chaos.asks import CHAT_PATH, Ask, NextAsk, random_kind
from benchmarks.chaos.connection import connect, request_bytes

_TOKENS = 120
_PROMPTS = (
    "What is the capital of France, and what is it known for?",
    "Tell a short story about a dog and a boat.",
    "Explain in simple words why the sky is blue.",
    "Give five tips for learning to cook.",
    "What did people use before there were clocks?",
    "Write a letter to a friend about the rain.",
)


async def ask_uninterrupted(ports: Sequence[int], model: str) -> NextAsk:
    """Each prompt once while nothing is killed; then asks for any of them, which know the right answer."""
    right = [await _complete(ports[0], model, prompt) for prompt in _PROMPTS]

    def next_ask(rng: random.Random) -> Ask:
        index = rng.randrange(len(_PROMPTS))
        text, tokens = right[index]
        return Ask(random_kind(rng), model, _PROMPTS[index], _TOKENS, text, tokens, is_model=True)

    return next_ask


async def _complete(port: int, model: str, prompt: str) -> tuple[str, int]:
    """Text and output tokens."""
    messages = [{"role": "user", "content": prompt}]
    body = json.dumps({"model": model, "messages": messages, "max_tokens": _TOKENS, "temperature": 0}).encode()
    answer = bytearray()
    connection = await connect(port, request_bytes("POST", CHAT_PATH, body=body), answer.extend)
    await connection.over
    if connection.status != 200:
        raise RuntimeError(f"HTTP {connection.status} {answer.decode()}")
    found = msgspec.json.decode(answer)
    return found["choices"][0]["message"]["content"], found["usage"]["completion_tokens"]
