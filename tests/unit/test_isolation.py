"""Beginnings: shared by all, exclusive for a suspect."""

from __future__ import annotations

import asyncio

import pytest

from consumers.isolation import Isolation, Place


async def let_run() -> None:
    """Everything that can go on has gone on."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_many_begin_at_once() -> None:
    isolation = Isolation()
    assert [await isolation.begin() for _ in range(3)]


async def test_a_suspect_waits_for_those_inside_and_keeps_others_out_until_it_leaves() -> None:
    isolation = Isolation()
    inside = await isolation.begin()
    suspect = asyncio.create_task(isolation.begin_alone())
    await let_run()
    other = asyncio.create_task(isolation.begin())
    await let_run()
    assert not suspect.done()
    assert not other.done()
    inside.leave()
    await let_run()
    assert suspect.done()
    assert not other.done()
    suspect.result().leave()
    await let_run()
    assert other.done()


async def test_two_suspects_begin_one_after_the_other() -> None:
    isolation = Isolation()
    tasks: list[asyncio.Task[Place]] = [asyncio.create_task(isolation.begin_alone()) for _ in range(2)]
    await let_run()
    assert [task.done() for task in tasks] == [True, False]
    tasks[0].result().leave()
    await let_run()
    assert tasks[1].done()


async def test_a_suspect_that_is_cancelled_while_it_waits_lets_the_others_in() -> None:
    isolation = Isolation()
    inside = await isolation.begin()
    suspect = asyncio.create_task(isolation.begin_alone())
    await let_run()
    other = asyncio.create_task(isolation.begin())
    await let_run()
    suspect.cancel()
    with pytest.raises(asyncio.CancelledError):
        await suspect
    await let_run()
    assert other.done()
    inside.leave()


async def test_leaving_twice_counts_once() -> None:
    isolation = Isolation()
    first, second = await isolation.begin(), await isolation.begin()
    first.leave()
    first.leave()
    suspect = asyncio.create_task(isolation.begin_alone())
    await let_run()
    assert not suspect.done()
    second.leave()
    await suspect
