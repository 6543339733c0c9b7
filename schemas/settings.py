"""Settings: one frozen struct, read once from the environment by the command line.

Every setting is an environment variable `OPENCHAT_<NAME>`; docs/operations.md holds the
table that `settings_table` prints from here. Nothing else reads the environment.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from schemas.errors import SettingsError

PREFIX = "OPENCHAT_"
_OPENAI_KEY = "OPENAI_API_KEY"
"""The name under which the official client and everybody else looks for it."""
EngineName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.-]{1,64}\Z")]
"""Of one that is built in, or that an installed package adds: docs/extending.md."""
Unsupported = Literal["reject", "warn"]
"""What becomes of a request parameter that is unknown or not served."""

_Positive = Annotated[int, Meta(ge=1)]
_NotNegative = Annotated[int, Meta(ge=0)]
_Rate = Annotated[float, Meta(gt=0)]


def _setting(default: Any, help: str, *, secret: bool = False) -> Any:
    _HELP.append((help, secret))
    return default


_HELP: list[tuple[str, bool]] = []


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings with their defaults; durations carry their unit in the name."""

    redis_url: str = _setting(
        "",
        "Broker, `redis://…`, `redis+sentinel://…`, `redis+cluster://…`; empty: `openchat up` starts its own.",
        secret=True,
    )
    database_url: str = _setting(
        "", "Archive, `mysql+asyncmy://…` or `sqlite+aiosqlite:///…`; empty: a file in the data folder.", secret=True
    )
    database_admin_url: str = _setting("", "An administrator of MySQL, for `openchat migrate` alone.", secret=True)
    database_wait_s: _NotNegative = _setting(60, "How long a migration waits for a database that is not up yet.")
    data_dir: str = _setting(".openchat", "Folder for the embedded broker, the archive and `processes.json`.")
    models_file: str = _setting("", "TOML file with the models; without it `engine` and `model` make one entry.")
    engine: EngineName = _setting("local", "Engine of the one model where there is no models file.")
    model: str = _setting("", "Model name, or path of a GGUF file or model folder; empty: the engine's default.")
    model_grace_s: _NotNegative = _setting(
        60, "A model whose last worker was there so long ago still takes requests: they wait for the next worker."
    )
    python_inference: str = _setting(
        "",
        "Interpreter for the inference workers of `openchat up`; empty: `.venv-<engine>` in the checkout if it is there, else our own.",
    )
    metrics_host: str = _setting("127.0.0.1", "Where workers and archivers serve their metrics.")
    metrics_port: Annotated[int, Meta(ge=0, le=65_535)] = _setting(
        0,
        "Port of a worker's or archiver's metrics; `openchat up` counts up from it, a port for each; 0: none.",
    )
    api_keys: str = _setting(
        "",
        "`tenant=<sha256 of the key, hex>`, several with commas; `openchat key TENANT` makes one. Without these, admin keys and managed keys: no keys, loopback only.",
        secret=True,
    )
    admin_keys: str = _setting(
        "",
        "SHA-256 of each admin key, hex, several with commas: they open `/admin` alone; `openchat key --admin` makes one.",
        secret=True,
    )
    api_key: str = _setting("", "The key that `openchat chat` and `openchat tail` send.", secret=True)
    max_body_bytes: _Positive = _setting(4 << 20, "Largest request body; over it 413.")
    unsupported_parameters: Unsupported = _setting(
        "reject",
        "Request parameters that are unknown or not served: `reject` refuses them by name, `warn` leaves them out and names them in `x-openchat-warnings`.",
    )
    max_head_bytes: Annotated[int, Meta(ge=1024)] = _setting(
        32 << 10, "Largest request line with all its headers; over it 431."
    )
    head_timeout_s: _Rate = _setting(
        10.0, "A connection that has not sent the headers of a request by then is closed, with 408 if it has begun."
    )
    max_connections: _Positive = _setting(10_000, "Connections of one gateway; over it 503.")
    cors_origins: str = _setting(
        "", "Origins whose pages may call this server from a browser, several with commas; `*`: all; empty: none."
    )
    docs: bool = _setting(True, "Serve `/openapi.json` and the page `/docs`, to everybody.")
    image_urls: Literal["refuse", "fetch"] = _setting(
        "refuse", "Images that a request names by URL: refused, or fetched by the gateway from public addresses."
    )
    image_max_bytes: Annotated[int, Meta(ge=1, le=20 << 20)] = _setting(
        4 << 20, "Images that a request names by URL, together."
    )
    image_timeout_s: _Positive = _setting(10, "All of them must have come by then.")
    outbound_ports: str = _setting(
        "80,443", "Ports to which a gateway connects for others (images by URL), with commas."
    )
    outbound_allow: str = _setting(
        "", "Networks to which it connects though they are not public, like `10.1.2.0/24`, with commas."
    )
    default_max_output_tokens: _NotNegative = _setting(
        0, "Maximum for requests that set none; 0: what the context leaves."
    )
    request_timeout_s: _Positive = _setting(600, "A response not finished by then is ended with `deadline_exceeded`.")
    max_queued: _Positive = _setting(10_000, "Requests queued per model and lane; over it 503.")
    heartbeat_s: _Positive = _setting(15, "Pause between SSE comments that keep an idle stream open.")
    send_timeout_s: _Positive = _setting(
        30, "A client that takes nothing for so long is disconnected, as if it had hung up."
    )
    disconnect_grace_s: Annotated[float, Meta(ge=0)] = _setting(
        0.0, "A response that is not in the background is ended so long after its last viewer left."
    )
    slots: _NotNegative = _setting(0, "Responses that a worker generates at once; 0: the engine's own number.")
    flush_ms: _NotNegative = _setting(
        10, "Least time between two flushes of a busy worker; first tokens and ends never wait."
    )
    lease_ms: Annotated[int, Meta(ge=500)] = _setting(
        5_000, "A worker silent for so long counts as dead and is taken over."
    )
    max_attempts: _Positive = _setting(3, "Attempts without a single token before a request is a dead letter.")
    engine_stall_s: _NotNegative = _setting(
        120,
        "An engine that gives nothing for so long while requests wait for it is stuck: the worker hands over and exits; 0: never.",
    )
    drain_grace_s: _NotNegative = _setting(
        20, "On SIGTERM a worker finishes what it can in this time and hands the rest over."
    )
    bus_max_entries: _Positive = _setting(10_000, "Approximate bound of the bus.")
    bus_max_age_s: _Positive = _setting(30, "Older bus entries are trimmed.")
    log_ttl_s: _Positive = _setting(600, "Life of a response log in the broker after its archive row is committed.")
    unstored_ttl_s: _Positive = _setting(
        300, "Life of the log of a response that was asked for with `store: false`, after its end."
    )
    retention_days: _NotNegative = _setting(
        0, "Responses that ended longer ago are deleted for good, where their tenant has no time of its own; 0: never."
    )
    archive_batch: _Positive = _setting(100, "Responses per archive transaction.")
    broker_timeout_s: _Positive = _setting(5, "A broker command that takes longer has failed, outcome unknown.")
    broker_connections: _Positive = _setting(16, "Connections of a process for commands; more wait for one.")
    wait_replicas: Annotated[int, Meta(ge=-1, le=16)] = _setting(
        -1,
        "Replicas that must have a request before it is accepted, and an end before it is forgotten; -1: one with Sentinel, else none.",
    )
    partitions: Annotated[int, Meta(ge=0, le=256)] = _setting(
        0,
        "Partitions of the response logs; 0: one, and 16 on a Cluster. The same everywhere, for the life of the data.",
    )
    local_threads: _NotNegative = _setting(0, "Threads of the local engine; 0: cores less one.")
    local_context: Annotated[int, Meta(ge=64)] = _setting(2048, "Context of one slot of the local engine, tokens.")
    openai_base_url: str = _setting("", "Engine `openai`: where the remote API is, like `https://host/v1`.")
    openai_api_key: str = _setting(
        "", "Engine `openai`: its key; `OPENAI_API_KEY` is taken where this is not set.", secret=True
    )
    openai_timeout_s: _Positive = _setting(60, "Engine `openai`: longest wait for the next bytes of the remote API.")
    synthetic_tokens_per_second: _Rate = _setting(50.0, "Pace of one stream of the synthetic engine.")
    synthetic_ttft_ms: Annotated[float, Meta(ge=0)] = _setting(0.0, "Time to the first token of the synthetic engine.")
    synthetic_jitter_ms: Annotated[float, Meta(ge=0)] = _setting(
        0.0, "Each token of the synthetic engine comes up to so much later."
    )
    synthetic_fail_after: _NotNegative = _setting(
        0, "The synthetic engine fails each response after so many tokens; 0: never."
    )
    synthetic_stall_after: _NotNegative = _setting(
        0, "The synthetic engine gives nothing more of a response after so many tokens; 0: never."
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting("info", "Least level of a log line.")


def settings_from_env(environ: Mapping[str, str], **overrides: Any) -> Settings:
    """Settings from `OPENCHAT_…` variables; `overrides` that are not None win.

    Raises SettingsError naming the variable: unknown (with the nearest known name) or of a wrong value.
    """
    fields = {f.name: f for f in msgspec.structs.fields(Settings)}
    values: dict[str, Any] = {}
    if environ.get(_OPENAI_KEY):
        values["openai_api_key"] = environ[_OPENAI_KEY].strip()
    for name, text in environ.items():
        if not name.startswith(PREFIX):
            continue
        key = name[len(PREFIX) :].lower()
        if key not in fields:
            raise SettingsError(f"unknown setting {name}{_suggestion(name, fields)}")
        values[key] = _converted(name, text, fields[key].type)
    values.update({k: v for k, v in overrides.items() if v is not None})
    try:
        return msgspec.convert(values, Settings)
    except msgspec.ValidationError as exc:
        raise SettingsError(f"wrong setting: {exc}") from exc


def _suggestion(name: str, fields: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, [PREFIX + f.upper() for f in fields], n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _converted(name: str, text: str, kind: Any) -> Any:
    try:
        return msgspec.convert(text.strip(), kind, strict=False)
    except msgspec.ValidationError as exc:
        raise SettingsError(f"{name}: {exc}") from exc


def settings_table() -> list[tuple[str, str, str]]:
    """(variable, default, meaning) of every setting, in order."""
    rows = zip(msgspec.structs.fields(Settings), _HELP, strict=True)
    return [(PREFIX + f.name.upper(), str(f.default), text) for f, (text, _) in rows]


def settings_markdown() -> str:
    """The table of docs/operations.md."""
    rows = [f"| `{name}` | {f'`{default}`' if default else ''} | {text} |" for name, default, text in settings_table()]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def effective_settings(settings: Settings) -> list[tuple[str, str]]:
    """(variable, value) with secrets masked."""
    rows = zip(msgspec.structs.fields(Settings), _HELP, strict=True)
    shown = []
    for field, (_, is_secret) in rows:
        value = str(getattr(settings, field.name))
        shown.append((PREFIX + field.name.upper(), "***" if is_secret and value else value))
    return shown
