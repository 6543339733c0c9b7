"""Models as clients see them while workers load, die and come back; engines and interpreters from outside."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.stack import RunningStack, running, spawn
from tests.extension import documented_files, install, path_with
from tests.ports import free_ports
from tests.waiting import until

pytestmark = pytest.mark.timeout(240)

GATED = {
    "pyproject.toml": """
[project]
name = "openchat-gated"
version = "1"
[project.entry-points."openchat.engines"]
gated = "gated_engine:create"
""",
    "gated_engine.py": """
import asyncio
from pathlib import Path

from engine.synthetic.engine import SyntheticEngine


class GatedEngine(SyntheticEngine):
    async def start(self, progress):
        progress("waits for the gate")
        while not self.gate.exists():
            await asyncio.sleep(0.05)


def create(entry, settings, environ):
    engine = GatedEngine(tokens_per_second=100, ttft_ms=0, capacity=4)
    engine.gate = Path(environ["TEST_GATE"])
    return engine
""",
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where packages are that every process of the stack finds."""
    monkeypatch.setenv("PYTHONPATH", path_with(tmp_path / "site"))
    return tmp_path / "site"


@pytest.fixture
def gate(tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The engine `gated` loads until this file exists."""
    install(site, GATED)
    monkeypatch.setenv("TEST_GATE", str(tmp_path / "gate"))
    return tmp_path / "gate"


async def get(stack: RunningStack, path: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.get(stack.url() + path)


async def ask(stack: RunningStack, **more: Any) -> httpx.Response:
    async with httpx.AsyncClient(timeout=60) as client:
        body = {"model": "gated", "input": "hi", "max_output_tokens": 3} | more
        return await client.post(f"{stack.url()}/v1/responses", json=body)


async def listed(stack: RunningStack) -> list[str]:
    return [model["id"] for model in (await get(stack, "/v1/models")).json()["data"]]


async def answers(stack: RunningStack) -> bool:
    try:
        return (await get(stack, "/healthz")).status_code == 200
    except httpx.TransportError:
        return False


async def loads(stack: RunningStack) -> bool:
    """So says `openchat status`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "openchat", "status", "--once", "--json", "--interval", "0.1"),
        *("--data-dir", str(stack.data_dir)),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return any(worker.get("loading") == "waits for the gate" for worker in json.loads(output)["workers"])


def open_gate(gate: Path, *, is_open: bool = True) -> None:
    gate.touch() if is_open else gate.unlink()


async def test_a_model_is_there_from_its_first_ready_worker_to_a_grace_time_after_its_last(
    tmp_path: Path, gate: Path
) -> None:
    stack = await spawn(tmp_path / "data", "--engine", "gated", lease_ms="1000", model_grace_s="8")
    try:
        await until(lambda: answers(stack), timeout_s=60)
        await until(lambda: loads(stack), timeout_s=30, what="the loading worker in `openchat status`")
        assert await listed(stack) == []
        assert (await get(stack, "/readyz")).status_code == 503
        refused = await ask(stack)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        assert "no worker serves it now" in refused.json()["error"]["message"]

        open_gate(gate)
        await stack.ready()
        assert (await ask(stack)).json()["status"] == "incomplete"
        model = (await get(stack, "/v1/models/gated")).json()
        assert (model["id"], model["object"], model["engine"]) == ("gated", "model", "gated")
        assert "generates" in model["capabilities"]

        open_gate(gate, is_open=False)
        stack.kill("inference-1")
        await until(lambda: loads(stack), timeout_s=30)
        assert await listed(stack) == ["gated"], "its worker was there a moment ago"
        waiting = (await ask(stack, background=True)).json()
        assert waiting["status"] == "queued"

        async def is_gone() -> bool:
            return await listed(stack) == []

        await until(is_gone, timeout_s=30, what="the end of the grace time")
        assert (await ask(stack)).status_code == 404

        open_gate(gate)

        async def is_done() -> bool:
            return bool((await get(stack, f"/v1/responses/{waiting['id']}")).json()["status"] == "incomplete")

        await until(is_done, timeout_s=30, what="the answer to what waited")
        assert (await ask(stack)).json()["status"] == "incomplete"
    except BaseException:
        print(stack.text)
        raise
    finally:
        await stack.stop()


async def test_an_engine_from_outside_runs_in_an_interpreter_of_its_own(tmp_path: Path, site: Path) -> None:
    install(site, documented_files("An engine"))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/started\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    port = free_ports(3)
    settings = {"python_inference": str(python), "metrics_port": str(port)}
    async with running(tmp_path / "data", "--engine", "parrot", "--workers", "2", **settings) as stack:
        client = stack.client()
        answer = await client.responses.create(model="parrot", input="Polly wants a cracker", max_output_tokens=6)
        assert answer.output_text == " Polly wants a cracker Polly wants"
        async with httpx.AsyncClient() as http:
            texts = [(await http.get(f"http://127.0.0.1:{port + i}/metrics")).text for i in range(3)]
        assert ["openchat_engine_start_seconds{" in text for text in texts] == [True, True, False], (
            "the third: archiver"
        )
    started = (tmp_path / "started").read_text()
    assert started.count("-m openchat inference") == 2
    assert "ingress" not in started


async def test_an_interpreter_that_can_not_serve_ends_the_start_with_a_reason(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'redis'\" >&2\nexit 1\n")
    python.chmod(0o755)
    stack = await spawn(tmp_path / "data", "--engine", "synthetic", python_inference=str(python))
    await until(lambda: stack.process.returncode is not None, timeout_s=60)
    assert await stack.stop() == 2
    assert "No module named 'redis'" in stack.text
