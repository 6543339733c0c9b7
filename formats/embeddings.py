"""The format of embeddings: one object; there is no stream."""

from __future__ import annotations

import base64
import struct
from typing import Any

from formats.transcript import Transcript


def embedding_list(transcript: Transcript) -> dict[str, Any]:
    """The answer to an embeddings request that was finished and did not fail."""
    accepted, terminal = transcript.accepted, transcript.terminal
    assert accepted is not None
    assert accepted.request.embed is not None
    assert terminal is not None
    is_base64 = accepted.request.embed.encoding == "base64"
    tokens = terminal.usage.input_tokens
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": i, "embedding": vector if is_base64 else _numbers(vector)}
            for i, vector in enumerate(transcript.vectors)
        ],
        "model": accepted.request.shown_model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _numbers(vector: str) -> list[float]:
    raw = base64.b64decode(vector)
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))
