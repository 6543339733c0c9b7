"""Whose fault it is that the archive refuses a row."""

from __future__ import annotations

from consumers.refusals import Refusals
from schemas.ids import new_response_id

A, B, C = (new_response_id() for _ in range(3))


def test_a_row_beside_one_that_went_in_is_guilty_at_once() -> None:
    refusals = Refusals()
    refusals.taken([C])
    assert refusals.refused([A, B], took_others=True) == [A, B]


def test_a_row_alone_is_guilty_the_third_time() -> None:
    refusals = Refusals()
    assert [refusals.refused([A], took_others=False) for _ in range(3)] == [[], [], [A]]


def test_two_of_which_none_goes_in_are_never_guilty() -> None:
    refusals = Refusals()
    for _ in range(10):
        assert refusals.refused([A, B], took_others=False) == []
    assert len(refusals) == 2


def test_a_row_that_is_taken_later_proves_those_before_guilty() -> None:
    refusals = Refusals()
    refusals.refused([A, B], took_others=False)
    refusals.taken([C])
    assert refusals.refused([A, B], took_others=False) == [A, B]


def test_a_row_that_is_taken_proves_nothing_about_one_that_comes_later() -> None:
    refusals = Refusals()
    refusals.taken([C])
    assert refusals.refused([A], took_others=False) == []


def test_a_row_that_goes_in_at_last_is_forgotten() -> None:
    refusals = Refusals()
    refusals.refused([A, B], took_others=False)
    refusals.taken([A, B])
    assert len(refusals) == 0
    assert refusals.refused([A], took_others=False) == []


def test_a_database_that_refuses_everything_costs_one_row_however_slowly_they_come() -> None:
    refusals = Refusals()
    for _ in range(3):
        guilty = refusals.refused([A], took_others=False)
    refusals.forget(guilty)
    assert guilty == [A]
    for _ in range(10):
        assert refusals.refused([B], took_others=False) == []
    refusals.taken([C])
    assert refusals.refused([B], took_others=False) == [B]


def test_what_another_archiver_settled_is_forgotten() -> None:
    refusals = Refusals()
    refusals.refused([A, B], took_others=False)
    refusals.forget_all_but({B, C})
    assert len(refusals) == 1
