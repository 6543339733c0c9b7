"""vLLM itself: its environment, its arguments, and the making of an AsyncLLM.

Everything here blocks for seconds to minutes: call it in a thread. All arguments of
vLLM's AsyncEngineArgs are taken by name; the defaults beside them are ours for the CPU build.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib.util
import json
import os
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import msgspec

from engine.vllm import orphan
from schemas.errors import EngineDead, SettingsError

CPU_SLOTS = 8
_CPU_KV_BYTES = 1 << 30
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The LoRA ranks for which vLLM makes room."""
_MAX_MESSAGE = 1_000


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of vLLM, in our words; `args` are fields of its AsyncEngineArgs."""

    path: str
    args: dict[str, Any] = {}
    slots: int = 0
    """0: what `args` say, or else vLLM's own number (on the CPU a small one)."""
    context_length: int = 0
    """0: what `args` say, or else the model's."""
    adapters: dict[str, str] = {}
    embeds: bool = False
    tool_parser: str = ""
    """vLLM's name (`--tool-call-parser`)."""
    reasoning_parser: str = ""
    chat_template: str = ""
    """Text, or the path of a file."""
    chat_template_kwargs: dict[str, Any] = {}
    """Defaults for the template's own variables, like `enable_thinking`."""


OUR_ARGS = {"tool_parser": str, "reasoning_parser": str, "chat_template": str, "chat_template_kwargs": dict}
"""Taken from the arguments of a model's entry, and no fields of AsyncEngineArgs."""


def check_installed() -> None:
    """Raises SettingsError where there is no vLLM; imports nothing."""
    if importlib.util.find_spec("vllm") is None:
        raise SettingsError(
            "engine vllm: vLLM is not installed in this environment: run `make install-vllm` (CPU), "
            "or start the worker from the image with vLLM (GPU)"
        )


def check_path(path: str) -> None:
    """Raises SettingsError for a folder that is not there; what is no path may be a name for vLLM to fetch."""
    if not path:
        raise SettingsError("engine vllm: give the folder of a model (--model, or `path` in the models file)")
    if path.startswith(("/", "./", "../", "~")) and not Path(path).is_dir():
        raise SettingsError(f"engine vllm: {path} is no folder")


def load() -> str:
    """Import vLLM with the environment that it needs; its version. Values that are set already stay."""
    check_installed()
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    import vllm
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        # the engine core hosts the worker itself: one process fewer, and faster on few cores
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    return str(vllm.__version__)


def build(options: Options) -> Any:
    """An AsyncLLM with the model loaded. Raises SettingsError, or EngineDead where its process died."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    os.environ[orphan.VARIABLE] = str(os.getpid())
    known = {field.name: field for field in dataclasses.fields(AsyncEngineArgs)}
    fields = _fields(options, known.keys())
    with _map_errors(options.path):
        fields = {name: _nested(known[name], value) for name, value in fields.items()}
        config = AsyncEngineArgs(**fields).create_engine_config(UsageContext.ENGINE_CONTEXT)
        return AsyncLLM.from_vllm_config(config, disable_log_stats=bool(fields.get("disable_log_stats", False)))


def lora_requests(adapters: dict[str, str]) -> dict[str, Any]:
    """vLLM's handle for each adapter, by name."""
    from vllm.lora.request import LoRARequest

    return {
        name: LoRARequest(lora_name=name, lora_int_id=number, lora_path=path)
        for number, (name, path) in enumerate(adapters.items(), start=1)
    }


def _nested(field: Any, value: Any) -> Any:
    """A table of the models file as the config class that vLLM has there."""
    if not isinstance(value, dict):
        return value
    default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    is_config = dataclasses.is_dataclass(default) and not isinstance(default, type)
    return type(default)(**value) if is_config else value


def _fields(options: Options, known: Set[str]) -> dict[str, Any]:
    for name in options.args:
        if name not in known:
            near = difflib.get_close_matches(name, known | OUR_ARGS.keys(), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SettingsError(f"engine vllm: unknown argument {name!r}{hint}")
    asked: dict[str, Any] = {"model": options.path, "worker_extension_cls": "engine.vllm.orphan.WorkerExtension"}
    if options.slots:
        asked["max_num_seqs"] = options.slots
    if options.context_length:
        asked["max_model_len"] = options.context_length
    if options.embeds:
        asked["runner"] = "pooling"
    if options.reasoning_parser:
        asked["reasoning_parser"] = options.reasoning_parser  # a grammar begins where reasoning ends
    return {**_cpu_defaults(), **_lora_fields(options.adapters), **asked, **options.args}


def _cpu_defaults() -> dict[str, Any]:
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return {}
    return {
        "max_num_seqs": CPU_SLOTS,
        "dtype": "float32",  # without AVX-512 bfloat16 is emulated, several times slower
        "enforce_eager": True,  # compiling takes minutes at each start
        "kv_cache_memory_bytes": _CPU_KV_BYTES,
    }


def _lora_fields(adapters: dict[str, str]) -> dict[str, Any]:
    if not adapters:
        return {}
    rank = max(_rank(name, Path(folder)) for name, folder in adapters.items())
    fitting = [room for room in _RANKS if room >= rank]
    return {"enable_lora": True, "max_loras": len(adapters), "max_lora_rank": fitting[0] if fitting else rank}


def _rank(name: str, folder: Path) -> int:
    try:
        return int(json.loads((folder / "adapter_config.json").read_bytes())["r"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise SettingsError(f"adapter {name!r}: {folder} is no LoRA adapter: {exc}") from exc


@contextlib.contextmanager
def _map_errors(path: str) -> Iterator[None]:
    """What vLLM says of arguments and folders as SettingsError; a process that died as EngineDead."""
    from vllm.exceptions import VLLMClientError

    try:
        yield
    except (ValueError, TypeError, OSError, KeyError, AssertionError, NotImplementedError, VLLMClientError) as exc:
        raise SettingsError(f"engine vllm: {path}: {str(exc)[:_MAX_MESSAGE]}") from exc
    except (RuntimeError, MemoryError) as exc:
        raise EngineDead(f"vLLM did not start: {str(exc)[:_MAX_MESSAGE]} (its own lines in the log say more)") from exc
