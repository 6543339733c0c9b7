"""Pieces of text with exactly their ids (engine/detokenize.py)."""

from __future__ import annotations

import pytest

from engine.detokenize import Detokenizer, Piece

BYTES = [bytes([value]) for value in range(256)]
WORDS = [b"The", b" cap", b"ital", b" of", b" France", b" is", b" Paris", b".", b" \xf0\x9f", b"\x99\x82", b"\n\n"]
VOCABULARY = BYTES + WORDS


def decode(ids: list[int]) -> str:
    return b"".join(VOCABULARY[i] for i in ids).decode("utf-8", "replace")


def decode_stripped(ids: list[int]) -> str:
    """As SentencePiece: a space at the start is not part of the text."""
    return decode(ids).removeprefix(" ")


def ids_of(text: str) -> list[int]:
    """Whole words where there are some, else bytes."""
    raw, ids = text.encode(), []
    while raw:
        word = max((w for w in VOCABULARY if raw.startswith(w)), key=len)
        ids.append(VOCABULARY.index(word))
        raw = raw[len(word) :]
    return ids


def pieces_of(detokenizer: Detokenizer, ids: list[int]) -> list[Piece]:
    """All pieces; the last is what was left at the end."""
    return [*(piece for i in ids if (piece := detokenizer.push([i])).text), detokenizer.finish()]


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


SENTENCE = "The capital of France is Paris. 🙂 你好 The end"


def test_every_piece_stands_for_its_ids() -> None:
    pieces = pieces_of(Detokenizer(decode), ids_of(SENTENCE))
    assert text_of(pieces) == SENTENCE
    assert all(decode(list(piece.tokens)) == piece.text for piece in pieces)
    assert [i for piece in pieces for i in piece.tokens] == ids_of(SENTENCE)


def test_ids_of_a_split_character_wait_until_it_is_whole() -> None:
    detokenizer = Detokenizer(decode)
    assert [detokenizer.push([i]).text for i in "🙂!".encode()] == ["", "", "", "🙂", "!"]


def test_several_ids_at_once_are_one_piece() -> None:
    assert Detokenizer(decode).push(ids_of("The capital")) == Piece("The capital", tuple(ids_of("The capital")))


def test_a_character_that_stays_incomplete_is_left_out_with_its_ids() -> None:
    pieces = pieces_of(Detokenizer(decode), ids_of("The 🙂")[:-1])
    assert text_of(pieces) == "The"
    assert [i for piece in pieces for i in piece.tokens] == ids_of("The")


def test_bytes_that_are_no_text_are_not_held_for_ever() -> None:
    detokenizer = Detokenizer(decode)
    assert sum(bool(detokenizer.push([0x80]).text) for _ in range(32)) >= 3


@pytest.mark.parametrize("how", [decode, decode_stripped])
@pytest.mark.parametrize("stops", [[], ["is Paris.X"], [" of"], ["nce is P"], ["🙂 你"], ["."], ["好", "你好 The"]])
def test_behind_every_piece_it_goes_on_as_if_uninterrupted(how: object, stops: list[str]) -> None:
    assert callable(how)
    ids = ids_of(" " + SENTENCE)
    whole = pieces_of(Detokenizer(how, stops=stops), ids)
    expected = how(ids)
    for stop in stops:
        expected = expected.partition(stop)[0]
    assert text_of(whole) == expected
    for cut in range(len(whole)):
        said = [i for piece in whole[:cut] for i in piece.tokens]
        assert said == ids[: len(said)]
        rest = Detokenizer(how, context=said, before=text_of(whole[:cut]), stops=stops)
        assert pieces_of(rest, ids[len(said) :]) == whole[cut:]


def test_behind_half_a_character_its_text_comes_with_the_ids_that_complete_it() -> None:
    ids = [*ids_of("The"), *"🙂!".encode()]
    for cut in range(2, 5):
        rest = pieces_of(Detokenizer(decode, context=ids[:cut], before="The"), ids[cut:])
        assert text_of(rest) == "🙂!"
        assert [i for piece in rest for i in piece.tokens] == ids[cut:]
    begins_with_a_space = [VOCABULARY.index(b" \xf0\x9f"), 0x99, 0x82]
    rest = pieces_of(Detokenizer(decode, context=begins_with_a_space[:2], before=" "), begins_with_a_space[2:])
    assert rest == [Piece("🙂", (0x82,)), Piece()]


def test_a_stop_string_across_ids_is_not_in_the_text() -> None:
    detokenizer = Detokenizer(decode, stops=["tal of"])
    pieces = pieces_of(detokenizer, ids_of("The capital of France"))
    assert text_of(pieces) == "The capi"
    assert pieces[-1] == Piece("i", ())
    assert detokenizer.stopped
    assert detokenizer.count == 4


def test_what_a_stop_string_leaves_of_a_token_has_no_ids() -> None:
    pieces = pieces_of(Detokenizer(decode, stops=["ris"]), ids_of("The capital of France is Paris."))
    assert pieces[-1] == Piece(" Pa", ())
    assert text_of(pieces) == "The capital of France is Pa"


def test_a_stop_string_that_began_in_the_text_before_ends_it() -> None:
    detokenizer = Detokenizer(decode, context=ids_of("The cap"), before="The cap", stops=["capital"])
    assert detokenizer.push(ids_of("ital")) == Piece()
    assert detokenizer.stopped
    assert detokenizer.finish() == Piece()


def test_text_held_for_a_stop_string_comes_when_it_does_not() -> None:
    detokenizer = Detokenizer(decode, stops=[" capital city"])
    ids = ids_of("The capital of")
    assert [detokenizer.push([i]).text for i in ids] == ["The", "", "", " capital of"]
    ended = Detokenizer(decode, stops=[" capital city"])
    assert text_of(pieces_of(ended, ids[:3])) == "The capital"


def test_a_stop_string_may_continue_with_a_split_character() -> None:
    ids = ids_of("The end🙂")
    pieces = pieces_of(Detokenizer(decode, stops=["d🙂"]), ids)
    assert text_of(pieces) == "The en"
    pieces = pieces_of(Detokenizer(decode, stops=["d🙂"]), ids_of("The end你."))
    assert text_of(pieces) == "The end你."


def test_nothing_behind_a_stop_string_counts() -> None:
    detokenizer = Detokenizer(decode, stops=["."])
    assert detokenizer.push(ids_of("The. capital")).text == "The"
    assert detokenizer.count == 2
    assert detokenizer.push(ids_of("ital")) == Piece()
    assert detokenizer.count == 2


def test_an_empty_stop_string_stops_nothing() -> None:
    assert text_of(pieces_of(Detokenizer(decode, stops=[""]), ids_of("The"))) == "The"
