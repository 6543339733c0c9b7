"""When an engine counts as stuck."""

from __future__ import annotations

from consumers.stall import StallWatch


def test_an_engine_that_is_waited_for_and_gives_nothing_is_stuck_after_so_many_looks() -> None:
    watch = StallWatch(3)
    with watch.waiting():
        assert [watch.look() for _ in range(3)] == [False, False, True]


def test_a_sign_of_life_begins_the_count_again() -> None:
    watch = StallWatch(2)
    with watch.waiting():
        assert not watch.look()
        watch.heard()
        assert not watch.look()
        assert watch.look()


def test_an_engine_that_nothing_waits_for_is_not_stuck() -> None:
    watch = StallWatch(1)
    assert not watch.look()
    with watch.waiting(), watch.not_waiting():
        assert not watch.look()


def test_zero_looks_mean_never() -> None:
    watch = StallWatch(0)
    with watch.waiting():
        assert not any(watch.look() for _ in range(1000))
