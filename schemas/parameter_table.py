"""The tables of docs/api.md: what becomes of every parameter. `python -m schemas.parameter_table` prints them."""

from __future__ import annotations

import json
from collections.abc import Iterator

from schemas.parameters import OPTIONS, ROUTES, UNSERVED, routes_of

_CALLER = "kept with the response; not passed on to a remote API"
_CACHE = "passed on by the engine `openai`; others cache by the prompt alone"
_PENALTY = "-2 to 2"
_NOTES = {
    "background": "the answer comes at once, and nobody need wait for the response",
    "best_of": "where it equals `n`: nobody here says which is the best",
    "conversation": "id, or object with one; not with `previous_response_id`",
    "dimensions": "where the model can shorten its vectors",
    "encoding_format": "`float`, `base64`",
    "frequency_penalty": _PENALTY,
    "include": "`message.output_text.logprobs`: capability `logprobs`; OpenAI's other words add nothing: see above",
    "input": "text or items (responses); texts or token ids (embeddings)",
    "instructions": "not handed on to the next response",
    "items": "up to 20",
    "logit_bias": "capability `logit_bias`; up to 1,024 token ids of the model, -100 to 100",
    "logprobs": "capability `logprobs`; completions: how many beside each token",
    "max_completion_tokens": "or `max_tokens`",
    "max_output_tokens": "not given: `OPENCHAT_DEFAULT_MAX_OUTPUT_TOKENS`, or what the context leaves",
    "max_tokens": "not given: as `max_output_tokens`; completions: 16",
    "max_tool_calls": "of tools that the server runs: there are none, so it is shown and never reached",
    "messages": "texts, images (capability `images`), refusals, calls and their results",
    "metadata": "16 pairs",
    "model": "a name, an alias or an adapter of `GET /v1/models`",
    "n": "choices, 1 to 128, with several prompts all together; choice k has the seed + k",
    "parallel_tool_calls": "passed on to the engine",
    "presence_penalty": _PENALTY,
    "previous_response_id": "not with `conversation`",
    "prompt": "a text, token ids, or several of either; capability `completions`",
    "prompt_cache_key": _CACHE,
    "prompt_cache_retention": f"a maximum, which no engine here exceeds; {_CACHE}",
    "reasoning.effort": "capability `reasoning_effort`; OpenAI's seven words",
    "reasoning.summary": "`auto`, by which the model may make one: none is made, the reasoning itself is in the output",
    "reasoning_effort": "capability `reasoning_effort`; OpenAI's seven words",
    "response_format": "`text`; `json_object`, `json_schema`: capability `json_schema`",
    "safety_identifier": _CALLER,
    "seed": "of 64 bits",
    "service_tier": "`flex` yields to all else; `priority` is as `default`: [tiers](operations.md#service-tiers)",
    "stop": "up to 4",
    "store": "false: nothing of its content outlives `OPENCHAT_UNSTORED_TTL_S`",
    "stream": "server-sent events",
    "stream_options.include_usage": "responses: the usage is always there",
    "temperature": "0 to 2; not given: the engine's own, though the response object then says 1",
    "text.format": "`text`; `json_object`, `json_schema`: capability `json_schema`",
    "text.verbosity": "`medium`; `low`, `high`: capability `verbosity`",
    "tool_choice": "`auto`, `none`, `required`, a function, or `allowed_tools`",
    "tools": "functions, up to 128; capability `tools`",
    "top_logprobs": "0 to 20; capability `logprobs`",
    "top_p": "0 to 1; not given: the engine's own, though the response object then says 1",
    "truncation": "`auto`: see above",
    "user": _CALLER,
    "verbosity": "`medium`; `low`, `high`: capability `verbosity`",
}


def parameters_markdown() -> str:
    """Both tables. Raises KeyError for a served parameter of which nothing is said here."""
    served = [f"| `{name}` | {', '.join(_short(name))} | {_NOTES[name]} |" for name in _served()]
    unserved = [
        f"| `{name}` | {', '.join(f'`{json.dumps(value)}`' for value in one.neutral)} | {one.hint} |"
        for name, one in sorted(UNSERVED.items())
    ]
    return "\n".join(
        [
            "| served | by | |",
            "|---|---|---|",
            *served,
            "",
            "| not served | taken with | |",
            "|---|---|---|",
            *unserved,
        ]
    )


def _served() -> list[str]:
    return sorted({name for body in ROUTES.values() for field in body.__struct_fields__ for name in _names(field)})


def _names(field: str) -> Iterator[str]:
    if field not in OPTIONS:
        yield field
        return
    for name in OPTIONS[field].__struct_fields__:
        yield f"{field}.{name}"


def _short(name: str) -> list[str]:
    """The routes by the last word of their paths, `chat` for the first."""
    routes = routes_of(name.partition(".")[0])
    return [route.removeprefix("/v1/").replace("chat/completions", "chat") for route in routes]


if __name__ == "__main__":
    print(parameters_markdown())
