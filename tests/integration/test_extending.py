"""docs/extending.md: what it shows works; engines from outside keep the contract, the conformance suites' as well."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from engine.registry import create_engine, engine_names
from ingress.wire import load_wires
from schemas.errors import SettingsError
from schemas.models import ModelEntry
from schemas.settings import Settings
from tests.acceptance.stack import running
from tests.conformance.stack import PROJECT as SCRIPTED_ENGINE
from tests.conftest import need
from tests.extension import documented_files, install, path_with, project_files

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "tests" / "engines" / "test_contract.py"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on this process's path, for packages."""
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield tmp_path
    for name in [name for name, module in sys.modules.items() if str(tmp_path) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def made(engine: str, **entry: object) -> object:
    return create_engine(ModelEntry(name="m", engine=engine, **entry), Settings(), {})  # type: ignore[arg-type]


def a_package(value: str, source: str, name: str = "odd") -> dict[str, str]:
    project = (
        f'[project]\nname="openchat-{name}"\nversion="1"\n[project.entry-points."openchat.engines"]\n{name}="{value}"\n'
    )
    return {"pyproject.toml": project, f"{name}_engine.py": source}


def test_the_documented_engine_is_found_by_its_entry_point(site: Path) -> None:
    assert "parrot" not in engine_names()
    install(site, documented_files("An engine"))
    assert "parrot" in engine_names()
    assert type(made("parrot")).__name__ == "ParrotEngine"


def test_an_engine_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(SettingsError, match=r"'steam' does not exist here; there are local, .*openchat\.engines"):
        made("steam")


def test_adapters_for_an_engine_that_has_none_are_refused() -> None:
    with pytest.raises(SettingsError, match="the engine local serves no adapters"):
        made("local", adapters={"blue": "/blue"})


def test_a_package_can_not_replace_a_built_in_engine(site: Path) -> None:
    install(site, a_package("synthetic_engine:create", "create = print", name="synthetic"))
    assert type(made("synthetic")).__name__ == "SyntheticEngine"
    assert engine_names().count("synthetic") == 1


@pytest.mark.parametrize(
    ("value", "source", "words"),
    [
        ("odd_engine:create", "import no_such_library", "no_such_library"),
        ("odd_engine:create", "", "create"),
        ("odd_engine:create", "create = 5", "can not be called"),
        ("odd_engine:create", "def create(*_):\n    import no_such_library", "no_such_library"),
    ],
)
def test_a_package_that_does_not_work_is_a_settings_error(site: Path, value: str, source: str, words: str) -> None:
    install(site, a_package(value, source))
    with pytest.raises(SettingsError, match=words):
        made("odd")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["parrot", "scripted"])
async def test_an_engine_from_outside_keeps_the_contract_of_all_engines(tmp_path: Path, name: str) -> None:
    need(SUITE.exists(), "the contract suite of all engines")
    install(tmp_path, documented_files("An engine") if name == "parrot" else project_files(SCRIPTED_ENGINE))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(SUITE)),
        cwd=ROOT,
        env=os.environ
        | {
            "PYTHONPATH": path_with(tmp_path),
            "OPENCHAT_TEST_ENGINE": name,
            "OPENCHAT_TEST_MODEL": f"tiny-{name}",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert " passed" in output.decode()


def a_wire(value: str, source: str) -> dict[str, str]:
    project = f'[project]\nname="openchat-odd"\nversion="1"\n[project.entry-points."openchat.wires"]\nodd="{value}"\n'
    return {"pyproject.toml": project, "odd_wire.py": source}


def test_the_documented_wire_format_is_found_by_its_entry_point(site: Path) -> None:
    install(site, documented_files("A wire format"))
    assert [wire.path for wire in load_wires()][-1] == "/v1/lines"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("wire = 5", "is no ingress.wire.Wire"),
        ("from ingress.wire import CHAT as wire", "takes the path or the name of another"),
        ("import no_such_library", "no_such_library"),
    ],
)
def test_a_wire_format_that_does_not_work_is_a_settings_error(site: Path, source: str, words: str) -> None:
    install(site, a_wire("odd_wire:wire", source))
    with pytest.raises(SettingsError, match=words):
        load_wires()


@pytest.mark.timeout(180)
async def test_the_documented_wire_format_is_served_streamed_resumed_and_whole(tmp_path: Path) -> None:
    install(tmp_path / "site", documented_files("A wire format"))
    os_path = {"PYTHONPATH": path_with(tmp_path / "site")}
    body = {"model": "synthetic", "text": "hi", "length": 4}
    async with (
        running(tmp_path / "data", "--engine", "synthetic", environ=os_path) as stack,
        httpx.AsyncClient(base_url=stack.url(), timeout=30) as client,
    ):
        whole = await client.post("/v1/lines", json=body)
        streamed = await client.post("/v1/lines", json=body | {"stream": True})
        rest = await client.get(streamed.headers["location"], headers={"last-event-id": "1-7"})
        wrong = await client.post("/v1/lines", json=body | {"length": 0})
    assert whole.text == " t0 t1 t2 t3"
    assert streamed.text == (
        "data:  t0\nid: 1-6\n\ndata:  t1\nid: 1-7\n\ndata:  t2\nid: 1-8\n\ndata:  t3\nid: 1-9\n\ndata: [DONE]\n\n"
    )
    assert rest.text == "data:  t2\nid: 1-8\n\ndata:  t3\nid: 1-9\n\ndata: [DONE]\n\n"
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "length")
