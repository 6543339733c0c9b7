"""What schemathesis can not know of this server: the names of its models, and rules that no JSON schema says."""

from __future__ import annotations

import os
import re
from typing import Any

import schemathesis
from schemathesis.openapi.checks import RejectedPositiveData

MODEL = os.environ["CONFORMANCE_MODEL"]
LONGEST_MODEL = 512
MOST = {"max_tokens": 16, "max_completion_tokens": 16, "max_output_tokens": 16, "n": 2, "best_of": 2}
"""Thousands of requests ask for an answer."""
BOUNDS = {"n": 128, "best_of": 128}
"""What the schema allows; of tokens more."""
MANY = 10_000_000

UNSAYABLE: tuple[tuple[str, str, str], ...] = (
    (
        "invalid_cursor",
        r"beyond the end|can be kept|a fork can not go on",
        "it depends on what the cursor points into",
    ),
    ("invalid_cursor", r"are different; give one", "two parameters are two ways to say one thing"),
    ("capability_missing", "", "what the engine behind a model can do"),
    ("context_length_exceeded", "", "how many tokens a text has"),
    ("body_too_large", "", "a setting bounds the whole, the schema each part"),
    ("invalid_value", r"start must be before end", "one parameter bounds the other"),
    ("invalid_value", r"of hour and day one", "the same"),
    ("invalid_value", r"must be a time like", "a month has 28 to 31 days, a day 24 hours, and a year is not 0"),
    ("invalid_value", r"would have expired already", "the time is compared with the clock"),
    ("invalid_value", r", not both\.", "two fields are two ways to say one thing"),
    ("invalid_value", r"needs logprobs: true|needs stream=true", "one field, or parameter, needs another"),
    ("invalid_value", r"make \d+ choices", "the product of two fields is bounded"),
    ("invalid_value", r"tool_choice|Two tools have the same name|is not in tools", "a name stands for another field"),
    ("invalid_value", r"Give the JSON schema", "one field needs another, by the value of its type"),
    ("invalid_value", r"tool_call_id|tool_calls|content: missing|is empty", "what a message needs depends on its role"),
    ("invalid_value", r"text: missing|image_url: missing|has no text|must be|only images", "the same, of parts"),
    ("invalid_value", r"links are not fetched|data URL", "what a URL may be depends on a setting"),
    ("invalid_value", r"input has no message|nothing that a model can be given", "items alone may say nothing"),
    ("invalid_value", r"is kept|fork|could be gone on from", "what a fork may ask for depends on what it keeps"),
    ("unsupported_parameter", r"best_of|audio|function_call", "a value is taken where it is that of another field"),
)
"""Code and message of a refusal of what the schema allows, and what no schema could have said."""


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Every phase comes by here."""
    if isinstance(case.body, dict):
        ask_for_little(case.body, needs_no_model=case.operation.path == "/api/chat")
    is_right = case.meta is not None and case.meta.generation.mode.is_positive
    # the coverage phase (4.32.5) writes letters and digits alone into headers, and takes 0 for a cursor
    if is_right and case.headers and case.headers.get("last-event-id") == "0":
        case.headers["last-event-id"] = "0-1"


def ask_for_little(body: dict[str, Any], *, needs_no_model: bool) -> None:
    """A body that is right in these fields asks for a model that is there, and for little."""
    model = body.get("model")
    if (isinstance(model, str) and len(model) <= LONGEST_MODEL) or (needs_no_model and model is None):
        body["model"] = MODEL
    for name, most in MOST.items():
        count = body.get(name)
        if type(count) in (int, float) and most < count <= BOUNDS.get(name, MANY) and count == int(count):
            body[name] = most


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Not a failure: a request that fits the schema is refused by a rule of `UNSAYABLE`."""
    if not isinstance(failure, RejectedPositiveData) or response.status_code not in (400, 413):
        return True
    error = response.json()["error"]
    return not any(error["code"] == code and re.search(words, error["message"]) for code, words, _ in UNSAYABLE)
