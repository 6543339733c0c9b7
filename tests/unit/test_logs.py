"""Log lines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from telemetry.logs import REQUEST_ID, setup_logging


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """As it was, afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


async def test_a_line_names_the_request_that_is_served_and_what_it_started_does_too(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_logging("info")
    log = logging.getLogger("ingress.x")

    async def serve(request_id: str) -> None:
        REQUEST_ID.set(request_id)
        log.info("served")
        await asyncio.create_task(later())

    async def later() -> None:
        log.warning("later id=%s", 5)

    log.info("before")
    await asyncio.gather(serve("req_a"), serve("req_b"))
    log.info("after")
    lines = sorted(line.split(" ingress.x ")[1] for line in capsys.readouterr().err.splitlines())
    assert lines == [
        "after",
        "before",
        "later id=5 request=req_a",
        "later id=5 request=req_b",
        "served request=req_a",
        "served request=req_b",
    ]
