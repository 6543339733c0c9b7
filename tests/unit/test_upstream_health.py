"""When an upstream rests, for how long, and who tries it first afterwards. Times are given, not waited for."""

from __future__ import annotations

import random

import pytest

from engine.remote.health import Health


@pytest.fixture
def health() -> Health:
    return Health(random.Random(0))


def test_a_new_upstream_is_open(health: Health) -> None:
    assert health.is_open(0.0)
    assert not health.begun(), "no probe"


def test_each_failure_in_a_row_makes_the_rest_longer_up_to_a_limit(health: Health) -> None:
    now, rests = 100.0, []
    for _ in range(10):
        rests.append(health.failed(now, now, None))
        now += rests[-1]
    for rest_s, longest_s in zip(rests, [0.5, 1, 2, 4, 8, 16, 20, 20, 20, 20], strict=True):
        assert 0.75 * longest_s <= rest_s <= longest_s
    assert len(set(rests[-4:])) == 4, "jitter"


def test_tries_that_fail_side_by_side_are_one_failure(health: Health) -> None:
    for number in range(64):
        assert health.failed(10.0, 10.1 + number / 1000, None) < 0.6


def test_what_the_upstream_says_counts_up_to_a_limit(health: Health) -> None:
    assert health.failed(10.0, 10.0, 7.0) == 7.0
    assert health.told_until == 17.0
    assert health.failed(17.0, 17.0, 1e9) == 120.0
    assert health.failed(200.0, 200.0, None) < 10.0
    assert health.told_until < 200.0, "that rest is ours"


def test_the_rest_over_one_request_tries_it_first(health: Health) -> None:
    rest_s = health.failed(0.0, 0.0, None)
    assert not health.is_open(rest_s / 2)
    assert health.is_open(rest_s)
    assert health.begun()
    assert not health.is_open(rest_s), "one is trying"
    health.probed()
    assert health.is_open(rest_s)
    assert health.begun()
    assert health.served(rest_s)
    assert health.is_open(rest_s)


def test_a_success_makes_the_next_rest_short_again(health: Health) -> None:
    for now in (0.0, 10.0, 20.0):
        health.failed(now, now, None)
    assert health.served(30.0)
    assert not health.served(31.0), "that is no news"
    assert health.failed(40.0, 40.0, None) <= 0.5


def test_what_began_before_a_failure_says_nothing_of_the_time_after_it(health: Health) -> None:
    health.failed(10.0, 10.0, 5.0)
    assert not health.served(9.0)
    assert health.is_resting(11.0)
