"""With which Python `openchat up` starts an inference worker: heavy engines have environments of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from schemas.errors import SettingsError
from schemas.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[1]
_CHECK = "import openchat.parts, consumers.inference, engine.registry, uvloop"
"""What an inference worker imports beside its engine."""
_CHECK_LIMIT_S = 120.0


def inference_python(settings: Settings, engine: str, *, checkout: Path = CHECKOUT) -> str:
    """Path of the interpreter for a worker with this engine. Raises SettingsError where it can not be run."""
    named = settings.python_inference
    if named:
        found = shutil.which(named)
        if found is None:
            raise SettingsError(f"OPENCHAT_PYTHON_INFERENCE: there is no program {named!r}")
        return found
    own = checkout / f".venv-{engine}" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def python_path(environ: Mapping[str, str], *, checkout: Path = CHECKOUT) -> dict[str, str]:
    """The environment in which another interpreter finds our code, where it lies in a checkout."""
    if not (checkout / "pyproject.toml").exists():
        return dict(environ)  # installed: what lies beside us would be of the wrong interpreter
    paths = [str(checkout), *filter(None, [environ.get("PYTHONPATH")])]
    return {**environ, "PYTHONPATH": os.pathsep.join(paths)}


def check_python(python: str, environ: Mapping[str, str]) -> None:
    """Raises SettingsError where another interpreter lacks what an inference worker needs."""
    try:
        done = subprocess.run(
            [python, "-c", _CHECK], env=dict(environ), capture_output=True, timeout=_CHECK_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise SettingsError(f"the interpreter {python} can not be run: {exc}") from exc
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").split("\n")
        why = next((line for line in reversed(lines) if line.strip()), f"exit code {done.returncode}")
        raise SettingsError(
            f"the interpreter {python} can not run an inference worker: {why}; "
            "it needs OpenChat, redis, msgspec, prometheus-client, httpx, uvloop and its engine"
        )
