"""The whole stack on MySQL's protocol: a fresh database, and the same events after the log is gone."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.acceptance.stack import running
from tests.acceptance.test_resume import log_is_gone
from tests.database import MariaDB
from tests.waiting import until

pytestmark = pytest.mark.timeout(240)


async def test_on_a_fresh_mysql_a_replay_after_the_log_expired_equals_the_live_stream(
    tmp_path: Path, mariadb: MariaDB
) -> None:
    url = await mariadb.database()
    settings = {"database_url": url, "log_ttl_s": "1", "synthetic_tokens_per_second": "500"}
    async with running(tmp_path / "data", "--engine", "synthetic", gateways=2, **settings) as stack:
        body = {"model": "synthetic", "input": "模型 🙂", "max_output_tokens": 50, "stream": True}
        async with httpx.AsyncClient(timeout=30) as client:
            live = (await client.post(f"{stack.url()}/v1/responses", json=body)).text
            response_id = live.split('"id":"')[1].split('"')[0]
            await until(lambda: log_is_gone(stack, response_id), what="the log to expire")
            for gateway in (1, 2):
                replayed = await client.get(f"{stack.url(gateway)}/v1/responses/{response_id}?stream=true")
                assert replayed.text == live
        assert live.count("response.output_text.delta") == 100
