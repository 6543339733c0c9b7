"""Loading a model folder with transformers. Everything here blocks and runs in a thread."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as library_logging

from engine.transformers.args import TransformersArgs
from schemas.errors import EngineDead, SettingsError

_UNLIMITED = 1_000_000_000
"""Tokenizers without a limit say a number above this."""
_UNKNOWN_CONTEXT = 4096


class LoadedModel:
    """The weights and what belongs to them, on their device."""

    def __init__(self, folder: Path, args: TransformersArgs, *, embeds: bool) -> None:
        """Raises SettingsError or EngineDead."""
        self._folder = folder
        library_logging.disable_progress_bar()  # progress goes to the log
        if args.threads:
            torch.set_num_threads(args.threads)
        self.device = _device(args.device)
        with _mapped_errors(folder):
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            loader = AutoModel if embeds else AutoModelForCausalLM
            options = {"attn_implementation": args.attn_implementation} if args.attn_implementation else {}
            dtype = args.dtype if args.dtype == "auto" else getattr(torch, args.dtype)
            model = loader.from_pretrained(folder, dtype=dtype, local_files_only=True, **options)
            self.model: Any = model.eval().to(self.device)

    @property
    def context_limit(self) -> int:
        """Tokens of prompt and answer for which the model was made; 0: it does not say."""
        config = self.model.config.get_text_config()
        limits = [getattr(config, "max_position_embeddings", None), self.tokenizer.model_max_length]
        return min((int(limit) for limit in limits if limit and limit < _UNLIMITED), default=0)

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def sequence_limit(self) -> int:
        """Tokens of one input for which a sentence-transformers model was made; 0: the folder does not say."""
        path = self._folder / "sentence_bert_config.json"
        try:
            found = msgspec.json.decode(path.read_bytes())
            return int(found.get("max_seq_length") or 0)
        except FileNotFoundError:
            return 0
        except (OSError, msgspec.DecodeError, AttributeError, TypeError, ValueError) as exc:
            raise SettingsError(f"{path}: {exc}") from exc

    def context_length(self, wanted: int) -> int:
        """What was wanted, or else what the model can; raises SettingsError where it can not."""
        limit = self.context_limit
        if limit and wanted > limit:
            raise SettingsError(f"context_length {wanted}: this model has at most {limit} tokens")
        return wanted or self.sequence_limit or limit or _UNKNOWN_CONTEXT

    def eos_ids(self) -> list[int]:
        """The ids that end a text."""
        found = self.model.generation_config.eos_token_id
        ids = [found] if isinstance(found, int) else list(found or [])
        own = self.tokenizer.eos_token_id
        return ids if own is None or own in ids else [*ids, int(own)]


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise SettingsError(f"engine transformers: there is no device {name!r}; PyTorch {torch.__version__} sees none")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise SettingsError(f"engine transformers: there is no device {name!r}")
    return name


@contextlib.contextmanager
def _mapped_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ImportError, SafetensorError) as exc:
        raise SettingsError(f"the model {folder} can not be loaded: {exc}") from exc
    except (RuntimeError, MemoryError) as exc:
        raise EngineDead(f"the model {folder} was not loaded: {exc}") from exc
