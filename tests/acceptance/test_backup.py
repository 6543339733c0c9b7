"""A backup made under load by the commands of docs/operations.md, and a stack that starts from it."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.acceptance.stack import RunningStack, running
from tests.conftest import need
from tests.database import MariaDB
from tests.waiting import until

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
SETTINGS = {"synthetic_tokens_per_second": "200", "log_ttl_s": "1"}


def commands(heading: str) -> str:
    """The commands of the first block behind a line of the documentation that begins so."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    found = re.search(rf"^\*\*{re.escape(heading)}.*?```\n(.*?)```", text, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1]


async def run(script: str, **variables: str) -> None:
    def work() -> None:
        done = subprocess.run(
            ["bash", "-eu", "-c", script],
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", **variables},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()

    await asyncio.to_thread(work)


async def ask(client: httpx.AsyncClient, stack: RunningStack, tokens: int) -> tuple[str, str]:
    """Id and stream of a response that is over."""
    body = {"model": "synthetic", "input": "模型 🙂", "max_output_tokens": tokens, "stream": True}
    live = (await client.post(f"{stack.url()}/v1/responses", json=body)).text
    return live.split('"id":"')[1].split('"')[0], live


async def begin(client: httpx.AsyncClient, stack: RunningStack, tokens: int) -> str:
    """The id of a response that is still being generated."""
    body = {"model": "synthetic", "input": "x", "max_output_tokens": tokens, "background": True}
    response_id = str((await client.post(f"{stack.url()}/v1/responses", json=body)).json()["id"])

    async def has_begun() -> bool:
        found = (await client.get(f"{stack.url()}/v1/responses/{response_id}")).json()
        return bool(found["status"] == "in_progress")

    await until(has_begun, what="a response that has begun")
    return response_id


async def replay(client: httpx.AsyncClient, stack: RunningStack, response_id: str) -> str:
    return (await client.get(f"{stack.url()}/v1/responses/{response_id}?stream=true")).text


async def check(stack: RunningStack, client: httpx.AsyncClient, asked: dict[str, str], unfinished: str) -> None:
    for response_id, live in asked.items():
        assert await replay(client, stack, response_id) == live
    text = await replay(client, stack, unfinished)
    assert "response.incomplete" in text
    assert text.count("response.output_text.delta") == 2 * 600  # on the lines `event:` and `data:`
    assert "".join(re.findall(r'"delta":"([^"]*)"', text)) == "".join(f" t{i}" for i in range(600))


async def test_a_copy_of_the_data_folder_made_under_load_is_a_whole_stack(tmp_path: Path) -> None:
    need(shutil.which("sqlite3"), "sqlite3")
    data, copy = tmp_path / "data", tmp_path / "copy"
    async with httpx.AsyncClient(timeout=60) as client:
        async with running(data, "--engine", "synthetic", **SETTINGS) as stack:
            asked = dict([await ask(client, stack, 20) for _ in range(5)])
            unfinished = await begin(client, stack, 600)
            asked |= dict([await ask(client, stack, 5) for _ in range(5)])
            await run(commands("SQLite, while it runs"), DATA=str(data), BACKUP=str(copy))
        async with running(copy, "--engine", "synthetic", **SETTINGS) as stack:
            await check(stack, client, asked, unfinished)


async def test_a_dump_of_the_database_made_under_load_is_a_whole_archive(tmp_path: Path, mariadb: MariaDB) -> None:
    need(shutil.which("mariadb-dump") and shutil.which("mariadb"), "mariadb-client")
    data, copy, url = tmp_path / "data", tmp_path / "copy", await mariadb.database()
    options = f"--host=127.0.0.1 --port={mariadb.port} --user=root"
    old, new = url.rpartition("/")[2], f"{url.rpartition('/')[2]}_2"
    async with httpx.AsyncClient(timeout=60) as client:
        async with running(data, "--engine", "synthetic", **SETTINGS, database_url=url) as stack:
            asked = dict([await ask(client, stack, 20) for _ in range(5)])
            unfinished = await begin(client, stack, 600)
            asked |= dict([await ask(client, stack, 5) for _ in range(5)])
            await run(
                commands("MySQL and MariaDB, while it runs"),
                DATA=str(data),
                BACKUP=str(copy),
                OPTIONS=options,
                DATABASE=old,
            )
        await run(commands("Back into MySQL"), BACKUP=str(copy), OPTIONS=options, DATABASE=new)
        async with running(copy, "--engine", "synthetic", **SETTINGS, database_url=mariadb.url(new)) as stack:
            await check(stack, client, asked, unfinished)


async def test_a_replay_from_sql_keeps_the_events_their_numbers_and_their_timing(tmp_path: Path) -> None:
    from archive.connect import open_archive
    from openchat.stack import default_database_url
    from schemas.ids import parse_response_id
    from streams.connect import Broker
    from streams.embedded import broker_url
    from streams.logs import ResponseLogs, decode_entry
    from tests.acceptance.test_resume import log_is_gone

    data = tmp_path / "data"
    settings = SETTINGS | {"synthetic_tokens_per_second": "20", "log_ttl_s": "3"}
    async with running(data, "--engine", "synthetic", **settings) as stack, httpx.AsyncClient(timeout=60) as client:
        text, _ = await ask(client, stack, 20)
        response_id = parse_response_id(text)
        assert response_id is not None
        broker = Broker(broker_url(data), timeout_s=2, connections=1)
        in_redis = await ResponseLogs(broker.commands, bus_max_entries=1).read_raw(response_id)
        await broker.close()
        assert len(in_redis) > 20
        await until(lambda: log_is_gone(stack, response_id), what="the log to expire")
        async with open_archive(default_database_url(data)) as archive:
            stored = await archive.read_log(response_id)
        assert [(entry.id, entry.event.encode()) for entry in stored or []] == in_redis
        last_ms = max(decode_entry(*entry).event.t for entry in in_redis)
        assert last_ms >= 900  # twenty tokens at twenty a second
        for speed in (2.0, 10.0):
            began = time.monotonic()
            await run(
                f"'{sys.executable}' -m openchat replay {response_id} --speed {speed} --data-dir '{data}'",
                PYTHONPATH=str(ROOT),
            )
            assert time.monotonic() - began >= last_ms / 1000 / speed
