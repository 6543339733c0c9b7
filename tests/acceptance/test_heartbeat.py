"""A stream that is silent for long stays open, and the official client reads on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.stack import running

pytestmark = pytest.mark.timeout(120)

SLOW = {"synthetic-ttft-ms": "2500"}
SETTINGS = {"heartbeat_s": "1"}


async def test_heartbeats_between_two_events_are_no_events_for_the_official_client(tmp_path: Path) -> None:
    async with running(tmp_path / "data", "--engine", "synthetic", **SETTINGS) as stack:
        client = stack.client()
        ask: dict[str, Any] = {"model": "synthetic", "stream": True, "metadata": SLOW}
        responses = await client.responses.create(**ask, input="hi", max_output_tokens=3)
        text = "".join([event.delta async for event in responses if event.type == "response.output_text.delta"])
        assert text == " t0 t1 t2"
        chat = await client.chat.completions.create(**ask, messages=[{"role": "user", "content": "hi"}], max_tokens=3)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in chat]) == " t0 t1 t2"
        async with httpx.AsyncClient(timeout=60) as raw:
            answer = await raw.post(f"{stack.url()}/v1/responses", json=ask | {"input": "hi", "max_output_tokens": 3})
        assert answer.text.count(": ping\n") >= 2
        assert ": ping\n\n" not in answer.text
