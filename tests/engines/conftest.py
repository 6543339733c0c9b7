"""One started engine for the whole suite: loading takes up to half a minute, so tests share an event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from engine.base import Embedder, Engine
from tests.engines import subjects
from tests.engines.subjects import Subject

_HEAVY_LIMIT_S = 300


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=subjects.names())
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    async with subjects.subject(request.param) as made:
        yield made


@pytest.fixture
def engine(subject: Subject) -> Engine:
    return subject.engine


@pytest.fixture
def generating(subject: Subject) -> None:
    """Skips where the model is loaded to embed."""
    if not subject.engine.capabilities.generates:
        pytest.skip(f"{subject.name} is loaded to embed")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def embedder(subject: Subject) -> AsyncIterator[Embedder]:
    async with subjects.embedder(subject) as made:
        yield made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Heavy libraries warn as they like, and take their time."""
    if not subjects.OTHER:
        return
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("ignore"))
        item.add_marker(pytest.mark.timeout(_HEAVY_LIMIT_S))
