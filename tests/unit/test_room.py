"""What the context leaves for an answer."""

from __future__ import annotations

import pytest

from engine.room import room_for
from schemas.errors import ContextTooLong


@pytest.mark.parametrize(
    ("prompt", "prefix", "limit", "left"),
    [
        (10, 0, None, 90),
        (10, 20, None, 70),
        (10, 20, 30, 10),
        (10, 20, 500, 70),
        (10, 20, 20, 0),
        (10, 20, 5, 0),
        (60, 40, None, 0),
    ],
)
def test_what_was_generated_before_counts_against_the_context_and_the_maximum(
    prompt: int, prefix: int, limit: int | None, left: int
) -> None:
    assert room_for(prompt=prompt, prefix=prefix, context=100, limit=limit) == left


@pytest.mark.parametrize(("prompt", "prefix"), [(100, 0), (60, 41), (101, 0)])
def test_where_not_one_token_fits_both_numbers_are_named(prompt: int, prefix: int) -> None:
    with pytest.raises(ContextTooLong, match=rf"{prompt} tokens.*100 tokens") as caught:
        room_for(prompt=prompt, prefix=prefix, context=100, limit=None)
    assert (caught.value.tokens, caught.value.context) == (prompt, 100)


def test_an_answer_that_has_not_begun_may_want_more_room_than_one_token() -> None:
    assert room_for(prompt=75, prefix=0, context=100, limit=None, least=25) == 25
    assert room_for(prompt=75, prefix=20, context=100, limit=None, least=25) == 5
    with pytest.raises(ContextTooLong):
        room_for(prompt=76, prefix=0, context=100, limit=None, least=25)
