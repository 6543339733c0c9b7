"""The arguments of the engine `transformers`, as a models file gives them."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from schemas.errors import SettingsError

_NotNegative = Annotated[int, Meta(ge=0)]


class TransformersArgs(msgspec.Struct, frozen=True, kw_only=True):
    """`args` of a model with this engine; each may be left out."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights in memory; auto: as they are stored."""
    device: Annotated[str, Meta(pattern=r"\A(auto|cpu|mps|cuda(:\d+)?)\Z")] = "auto"
    """auto: the first CUDA device if there is one, else the CPU."""
    attn_implementation: str = ""
    """As transformers names it (`sdpa`, `eager`, `flash_attention_2`, …); empty: its choice."""
    threads: _NotNegative = 0
    """Of PyTorch on the CPU; 0: its choice."""
    chat_template: str = ""
    """A Jinja file instead of the model's own template."""
    batching: Literal["auto", "continuous", "streamers"] = "auto"
    """continuous: one batch for all; streamers: a thread for each response; auto: continuous if the model can."""
    num_blocks: _NotNegative = 0
    """Pages of the continuous batch's cache; 0: on the CPU for all slots but at most 1 GiB, on CUDA by its memory."""
    page_size: Annotated[int, Meta(ge=4)] = 32
    """Tokens of one page."""
    max_batch_tokens: _NotNegative = 0
    """Tokens that one step of the continuous batch computes; 0: 512 on the CPU, on CUDA by its memory."""


def transformers_args(args: dict[str, Any]) -> TransformersArgs:
    """Checked; raises SettingsError, with the nearest name for an unknown one."""
    known = TransformersArgs.__struct_fields__
    for name in args:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise SettingsError(f"engine transformers has no argument {name!r}; did you mean {near[0]!r}?")
    try:
        return msgspec.convert(args, TransformersArgs)
    except msgspec.ValidationError as exc:
        raise SettingsError(f"engine transformers: {exc}") from exc
