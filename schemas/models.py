"""The models file: what has structure, in TOML (`OPENCHAT_MODELS_FILE`).

[[models]]
name = "smollm2-135m-instruct"
aliases = ["default"]
engine = "local"
path = "/models/SmolLM2-135M-Instruct.Q4_1.gguf"
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from schemas.errors import ModelNotFound, SettingsError
from schemas.requests import Takeover
from schemas.settings import EngineName, Settings

DEFAULT_MODEL: dict[str, str] = {"local": "smollm2-135m-instruct", "synthetic": "synthetic"}
DEFAULT_FOLDER = Path(".models/smollm2-135m")
"""Of the engines that load a model folder, where it was built."""
_LOAD_FOLDERS = ("vllm", "transformers")
_Name = Annotated[str, Meta(min_length=1, max_length=200)]
Ability = Literal[
    "completions",
    "tools",
    "json_schema",
    "logprobs",
    "images",
    "embeddings",
    "logit_bias",
    "reasoning_effort",
    "verbosity",
]
"""What one API has and another has not."""


class UpstreamEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One API that serves the model."""

    url: str
    weight: Annotated[float, Meta(gt=0)] = 1.0
    """Share of the requests, against the other upstreams of the model."""
    key: str = ""
    """Name of the environment variable that holds its key; empty: it needs none."""
    model: str = ""
    """What it calls the model; empty: `upstream_model`, or else as we do."""
    continues: bool = False
    """It goes on with a last message of the assistant (`continue_final_message`), as vLLM's server does."""


class Prices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a million tokens cost, in one currency for all models."""

    input: Annotated[float, Meta(ge=0)] = 0.0
    output: Annotated[float, Meta(ge=0)] = 0.0
    cached_input: Annotated[float, Meta(ge=0)] | None = None
    """Of input tokens that the engine had in its cache; None: as the others."""

    def cost_micros(self, *, input_tokens: int, cached_tokens: int, output_tokens: int) -> int:
        """Millionths of the currency; `cached_tokens` are among the input tokens."""
        cached = self.input if self.cached_input is None else self.cached_input
        fresh = max(0, input_tokens - cached_tokens)
        return round(fresh * self.input + cached_tokens * cached + output_tokens * self.output)


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model as clients name it and the engine that serves it."""

    name: _Name
    aliases: list[_Name] = []
    engine: EngineName = "local"
    path: str = ""
    """Weights; empty: the engine's built-in model."""
    upstream_model: str = ""
    """Engine `openai`: what the remote API calls it; empty: as we do."""
    upstreams: list[UpstreamEntry] = []
    """Engine `openai`: the APIs that serve it; empty: the one of the settings."""
    lacks: list[Ability] = []
    """Engine `openai`: what the API does not have; requests that need it are refused before they are queued."""
    args: dict[str, Any] = {}
    """Arguments for the engine, as it names them."""
    embeds: bool = False
    """It is loaded for embeddings, not for text."""
    adapters: dict[_Name, str] = {}
    """LoRA adapters: the name by which clients ask for one → its folder."""
    scale_from_zero: bool = False
    """Requests are queued though no worker serves it: something will start one."""
    takeover: Takeover = "continue"
    """What another worker does with a response whose worker died."""
    context_length: Annotated[int, Meta(ge=0)] = 0
    """Tokens of prompt and answer together; 0: the engine's setting."""
    max_queued: Annotated[int, Meta(ge=0)] = 0
    """Requests queued per lane; 0: the setting's."""
    prices: Prices | None = None
    """None: what a response costs is not said."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    models: Annotated[list[ModelEntry], Meta(min_length=1)]


class Models:
    """All models of this deployment, found by name or alias, and their adapters by name."""

    def __init__(self, entries: list[ModelEntry]) -> None:
        self.entries = entries
        self._by_name: dict[str, ModelEntry] = {}
        self._by_adapter: dict[str, ModelEntry] = {}
        for entry in entries:
            for name in (entry.name, *entry.aliases):
                self._add(name, entry, self._by_name)
            for name in entry.adapters:
                self._add(name, entry, self._by_adapter)

    def _add(self, name: str, entry: ModelEntry, names: dict[str, ModelEntry]) -> None:
        if name in self._by_name or name in self._by_adapter:
            raise SettingsError(f"models: the name {name!r} is given twice")
        names[name] = entry

    def get(self, name: str) -> ModelEntry | None:
        """By name or alias."""
        return self._by_name.get(name)

    def with_adapter(self, name: str) -> ModelEntry | None:
        """The model that this adapter belongs to."""
        return self._by_adapter.get(name)

    def find(self, name: str) -> ModelEntry:
        """By name or alias. Raises ModelNotFound, naming what there is."""
        entry = self.get(name)
        if entry is None:
            known = ", ".join(e.name for e in self.entries)
            raise ModelNotFound(f"The model {name[:200]!r} does not exist; this server has: {known}.", param="model")
        return entry


def load_models(settings: Settings) -> Models:
    """From the models file, or one entry from `engine` and `model`; raises SettingsError."""
    if not settings.models_file:
        return Models([_single_entry(settings.engine, settings.model)])
    try:
        raw = Path(settings.models_file).read_text(encoding="utf-8")
        return Models(msgspec.convert(tomllib.loads(raw), _File).models)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as exc:
        raise SettingsError(f"models file {settings.models_file}: {exc}") from exc


def _single_entry(engine: str, model: str) -> ModelEntry:
    if engine == "openai":
        if not model:
            raise SettingsError("engine openai: say with --model (OPENCHAT_MODEL) what the remote API calls its model")
        return ModelEntry(name=model, engine=engine)
    if engine in _LOAD_FOLDERS:
        model = model or _default_folder(engine)
        return ModelEntry(name=_last_part(model), engine=engine, path=model)
    if model.endswith(".gguf"):
        return ModelEntry(name=Path(model).stem, engine=engine, path=model)
    if "/" in model:
        return ModelEntry(name=_last_part(model), engine=engine, path=model)
    if engine == "local" and model not in ("", DEFAULT_MODEL["local"]):
        raise SettingsError(
            f"model {model!r}: the local engine has {DEFAULT_MODEL['local']!r} built in; "
            "for another give the path of a GGUF file"
        )
    return ModelEntry(name=model or DEFAULT_MODEL.get(engine, engine), engine=engine)


def _last_part(model: str) -> str:
    """Of a folder, or of a name like `organisation/name`: no look at the disk, for gateways may have another."""
    return Path(model).absolute().name


def _default_folder(engine: str) -> str:
    if not DEFAULT_FOLDER.is_dir():
        raise SettingsError(
            f"engine {engine}: give a model folder with --model (OPENCHAT_MODEL); "
            f"`make install-{engine}` builds a small one in {DEFAULT_FOLDER}"
        )
    return str(DEFAULT_FOLDER)
