"""`openchat status` beside a running stack."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from tests.acceptance.stack import RunningStack, running


async def status(stack: RunningStack, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "openchat", "status", "--once", "--interval", "0.2"),
        *("--data-dir", str(stack.data_dir), *arguments),
        env={**os.environ, "OPENCHAT_ENGINE": "synthetic"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_status_shows_a_running_stack_and_says_when_there_is_none(tmp_path: Path) -> None:
    async with running(tmp_path / "data", "--engine", "synthetic") as stack:
        await stack.client().responses.create(model="synthetic", input="hi", max_output_tokens=5)
        code, out, err = await status(stack)
        assert code == 0, err
        assert "inference-1-" in out
        assert "0 dead letters" in out
        code, out, _ = await status(stack, "--json")
        assert code == 0
        found = json.loads(out)
        assert found["queues"]["synthetic"]["interactive"]["added"] == 1
        assert found["workers"][0]["slots"] > 0
    code, out, err = await status(stack)
    assert (code, out) == (1, "")
    assert "the broker is away" in err
