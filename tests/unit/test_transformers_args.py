"""Arguments of the engine transformers, which are read without its library."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from engine.transformers.args import transformers_args
from engine.transformers.engine import TransformersEngine
from schemas.errors import SettingsError


@pytest.mark.parametrize(
    ("args", "match"),
    [
        ({"dtyp": "float32"}, "'dtyp'.*'dtype'"),
        ({"batch_tokens": 5}, "'batch_tokens'.*'max_batch_tokens'"),
        ({"dtype": "int3"}, "int3"),
        ({"threads": -1}, "threads"),
        ({"threads": "two"}, "threads"),
        ({"device": "abacus"}, "device"),
    ],
)
def test_a_wrong_argument_is_named(args: dict[str, Any], match: str) -> None:
    with pytest.raises(SettingsError, match=match):
        transformers_args(args)


def test_arguments_may_be_left_out() -> None:
    assert transformers_args({"device": "cuda:1"}).batching == "auto"


def test_without_its_library_it_says_how_to_install_it() -> None:
    if importlib.util.find_spec("transformers") is not None:
        pytest.skip("it is installed here")
    with pytest.raises(SettingsError, match="make install-transformers"):
        TransformersEngine(path="x", args={})
