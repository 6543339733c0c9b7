"""Embeddings with a model folder: mean of the last layer over the tokens, of length 1.

As sentence-transformers computes them; `1_Pooling/config.json` and `modules.json` of the
folder are read where they are there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch

from engine.base import Vectors
from schemas.errors import ContextTooLong, InvalidRequest, SettingsError
from schemas.requests import EmbeddingInput

_BATCH = 32
"""Inputs computed at once."""
Pooling = Literal["mean", "cls", "max", "lasttoken"]


class _PoolingFile(msgspec.Struct, frozen=True):
    pooling_mode: Pooling | None = None
    pooling_mode_cls_token: bool = False
    pooling_mode_max_tokens: bool = False
    pooling_mode_lasttoken: bool = False


def pooling_of(folder: Path) -> Pooling:
    """How the folder wants the tokens of an input joined; raises SettingsError where that can not be read."""
    path = folder / "1_Pooling" / "config.json"
    if not path.exists():
        return "mean"
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_PoolingFile)
    except (OSError, msgspec.DecodeError) as exc:
        raise SettingsError(f"{path}: {exc}") from exc
    if found.pooling_mode is not None:
        return found.pooling_mode
    if found.pooling_mode_cls_token:
        return "cls"
    if found.pooling_mode_max_tokens:
        return "max"
    return "lasttoken" if found.pooling_mode_lasttoken else "mean"


def normalizes(folder: Path) -> bool:
    """Whether vectors get the length 1: where modules.json lists modules, only if one of them does that."""
    try:
        modules = json.loads((folder / "modules.json").read_bytes())
        return any(str(module["type"]).endswith("Normalize") for module in modules)
    except FileNotFoundError:
        return True
    except (OSError, ValueError, TypeError, KeyError) as exc:
        raise SettingsError(f"{folder / 'modules.json'}: {exc}") from exc


class Embedding:
    """One model that embeds. Its methods block and may run in threads."""

    def __init__(self, model: Any, tokenizer: Any, folder: Path, context_length: int) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._pooling = pooling_of(folder)
        self._normalizes = normalizes(folder)
        self._context_length = context_length

    def vectors(self, embedding: EmbeddingInput) -> Vectors:
        """Raises InvalidRequest and ContextTooLong."""
        rows = [self._ids_of(text) for text in embedding.inputs]
        size = int(self._model.config.get_text_config().hidden_size)
        if embedding.dimensions not in (None, size):
            raise InvalidRequest(f"This model's vectors have {size} dimensions, no others.", param="dimensions")
        found: list[list[float]] = []
        for begin in range(0, len(rows), _BATCH):
            found += self._computed(rows[begin : begin + _BATCH])
        return Vectors(vectors=found, input_tokens=sum(len(row) for row in rows))

    def _ids_of(self, text: str | list[int]) -> list[int]:
        ids: list[int] = text if isinstance(text, list) else self._tokenizer(text, verbose=False).input_ids
        size = len(self._tokenizer)
        if not ids or any(not 0 <= token < size for token in ids):
            raise InvalidRequest(f"An input is empty, or has token ids beyond {size - 1}.", param="input")
        if len(ids) > self._context_length:
            raise ContextTooLong(
                f"An input has {len(ids)} tokens; the model takes {self._context_length} tokens.", param="input"
            )
        return ids

    def _computed(self, rows: list[list[int]]) -> list[list[float]]:
        length = max(len(row) for row in rows)
        padding = [self._tokenizer.pad_token_id or 0]
        ids = torch.tensor([row + padding * (length - len(row)) for row in rows], device=self._model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=self._model.device)
        with torch.inference_mode():
            states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        vectors = self._pooled(states, mask)
        if self._normalizes:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        listed: list[list[float]] = vectors.tolist()
        return listed

    def _pooled(self, states: Any, mask: Any) -> Any:
        if self._pooling == "cls":
            return states[:, 0]
        if self._pooling == "lasttoken":
            return states[torch.arange(len(states)), mask.sum(dim=1) - 1]
        weights = mask.unsqueeze(-1)
        if self._pooling == "max":
            return states.masked_fill(weights == 0, -torch.inf).amax(dim=1)
        return (states * weights).sum(dim=1) / weights.sum(dim=1)
