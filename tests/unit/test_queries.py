"""Query parameters."""

from __future__ import annotations

from datetime import datetime

import pytest
from starlette.requests import Request

from ingress.queries import check_parameters, integer, moment
from schemas.errors import InvalidRequest

NOW = datetime(2026, 1, 1)


def asked(query: str) -> Request:
    return Request({"type": "http", "query_string": query.encode(), "headers": []})


@pytest.mark.parametrize(
    "text", ["2025-03-01T12:00:00Z", "2025-03-01T13:00:00%2B01:00", "2025-03-01T13:00:00+01:00", "1740830400"]
)
def test_a_time_is_taken_in_iso_and_in_unix_seconds(text: str) -> None:
    assert moment(asked(f"at={text}"), "at", NOW) == datetime(2025, 3, 1, 12)
    assert moment(asked("at=2025-03-01"), "at", NOW) == datetime(2025, 3, 1)
    assert moment(asked(""), "at", NOW) == NOW


@pytest.mark.parametrize("text", ["", "x", "-1", "9" * 30, "2025-13-01", "0001-01-01T00:00:00%2B01:00", "\u0661"])
def test_what_is_no_time_is_an_error(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        moment(asked(f"at={text}"), "at", NOW)
    assert caught.value.param == "at"


@pytest.mark.parametrize("text", ["", "0", "11", "-1", "1.5", "x", "9" * 5000, "00000000011", "\u0661"])
def test_a_number_has_bounds(text: str) -> None:
    assert integer(asked("n=10"), "n", 5, least=1, most=10) == 10
    assert integer(asked(""), "n", 5, least=1, most=10) == 5
    with pytest.raises(InvalidRequest):
        integer(asked(f"n={text}"), "n", 5, least=1, most=10)


@pytest.mark.parametrize("query", ["b=1", "a=1&a=2"])
def test_unknown_parameters_and_those_given_twice_are_errors(query: str) -> None:
    check_parameters(asked("a=1"), ("a",))
    with pytest.raises(InvalidRequest):
        check_parameters(asked(query), ("a",))
