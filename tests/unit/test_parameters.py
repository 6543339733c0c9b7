"""Every parameter of OpenAI's API is served or refused by name, and none is left out silently."""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.chat.chat_completion_stream_options_param import ChatCompletionStreamOptionsParam
from openai.types.conversations.conversation_create_params import ConversationCreateParams
from openai.types.responses import response_create_params as responses_params
from openai.types.responses.function_tool_param import FunctionToolParam
from openai.types.responses.response_includable import ResponseIncludable
from openai.types.responses.response_text_config_param import ResponseTextConfigParam
from openai.types.shared.reasoning_effort import ReasoningEffort as OpenAIEffort
from openai.types.shared_params.reasoning import Reasoning

from formats.responses import response_object
from formats.transcript import transcript_of
from responses.resolve import resolve_chat, resolve_completions, resolve_responses
from schemas.api import Parsed, parse_body
from schemas.bodies import (
    ChatBody,
    CompletionsBody,
    ConversationBody,
    EmbeddingsBody,
    Include,
    ResponsesBody,
    ResponsesTool,
)
from schemas.errors import InvalidRequest, UnsupportedParameter
from schemas.events import Accepted, Entry, EntryId
from schemas.ids import new_response_id
from schemas.parameter_table import parameters_markdown
from schemas.parameters import OPTIONS, UNSERVED, is_option_object
from schemas.requests import GenerationRequest, ReasoningEffort
from schemas.settings import Unsupported

API = Path(__file__).parents[2] / "docs" / "api.md"
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
RESPONSES: dict[str, Any] = {"model": "m", "input": "hi"}
ENDS: dict[str, Any] = {"model": "m", "default_max": 0, "deadline_at_ms": 0}


def fields(*kinds: Any) -> set[str]:
    return {name for kind in kinds for name in typing.get_type_hints(kind, include_extras=False)}


CLIENT: dict[type[msgspec.Struct], set[str]] = {
    ChatBody: fields(*typing.get_args(chat_params.CompletionCreateParams)),
    ResponsesBody: fields(*typing.get_args(responses_params.ResponseCreateParams)),
    CompletionsBody: fields(*typing.get_args(completion_create_params.CompletionCreateParams)),
    EmbeddingsBody: fields(embedding_create_params.EmbeddingCreateParams),
    ConversationBody: fields(ConversationCreateParams),
}
CLIENT_OPTIONS = {
    "background_options": fields(responses_params.BackgroundOptions),
    "image": fields(responses_params.Image),
    "prompt_cache_options": fields(responses_params.PromptCacheOptions, chat_params.PromptCacheOptions),
    "reasoning": fields(Reasoning),
    "stream_options": fields(ChatCompletionStreamOptionsParam, responses_params.StreamOptions),
    "text": fields(ResponseTextConfigParam),
}


def read(values: dict[str, Any], kind: type[Any] = ChatBody, unsupported: Unsupported = "reject") -> Parsed[Any]:
    return parse_body(json.dumps(values).encode(), kind, unsupported=unsupported)


@pytest.mark.parametrize("body", CLIENT)
def test_every_parameter_of_the_official_client_is_known(body: type[msgspec.Struct]) -> None:
    unknown = [
        name
        for name in CLIENT[body]
        if name not in body.__struct_fields__ and name not in UNSERVED and not is_option_object(name)
    ]
    assert not unknown, "decide on them: serve them in schemas/bodies.py, or list them in schemas/parameters.py"


@pytest.mark.parametrize("name", CLIENT_OPTIONS)
def test_every_option_of_the_official_client_is_known(name: str) -> None:
    served = OPTIONS[name].__struct_fields__ if name in OPTIONS else ()
    unknown = [field for field in CLIENT_OPTIONS[name] if field not in served and f"{name}.{field}" not in UNSERVED]
    assert not unknown


def test_every_field_of_a_function_is_known() -> None:
    unserved = {name.removeprefix("tools[].") for name in UNSERVED if name.startswith("tools[].")}
    assert fields(FunctionToolParam) == {*ResponsesTool.__struct_fields__, *unserved}


def test_nothing_is_listed_that_the_client_does_not_have() -> None:
    options = {f"{name}.{field}" for name, known in CLIENT_OPTIONS.items() for field in known}
    tools = {f"tools[].{name}" for name in fields(FunctionToolParam)}
    assert set(UNSERVED) <= set.union(*CLIENT.values()) | options | tools


def test_the_words_of_choices_are_those_of_the_client() -> None:
    assert set(typing.get_args(Include)) == set(typing.get_args(ResponseIncludable))
    [efforts, _none] = typing.get_args(OpenAIEffort)
    assert set(typing.get_args(ReasoningEffort)) == set(typing.get_args(efforts))


def test_the_documented_table_is_the_one_of_the_code() -> None:
    assert parameters_markdown() in API.read_text(encoding="utf-8"), "run: python -m schemas.parameter_table"


@pytest.mark.parametrize(
    ("more", "param", "words"),
    [
        ({"colour": "red"}, "colour", "Unknown parameter: 'colour'"),
        ({"temprature": 1}, "temprature", "Did you mean 'temperature'?"),
        ({"audio": {"voice": "alloy"}}, "audio", "only text comes out"),
        ({"modalities": ["text", "audio"]}, "modalities", "not supported by this server with this value"),
        ({"functions": [{"name": "f"}]}, "functions", "use tools"),
        ({"function_call": {"name": "f"}}, "function_call", "use tools"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction", "prediction"),
        ({"web_search_options": {}}, "web_search_options", "nothing is searched"),
        ({"moderation": {"model": "m"}}, "moderation", "nothing is moderated"),
        ({"truncation": "auto"}, "truncation", "a parameter of /v1/responses, not of this"),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation", "not padded"),
        ({"stream_options": {"include_usgae": True}}, "stream_options.include_usgae", "Did you mean 'include_usage'?"),
        ({"prompt_cache_options": {"mode": "explicit"}}, "prompt_cache_options.mode", "cache every prefix"),
        ({"tools": [{}, {"async": True}]}, "tools[1].async", "in the next request"),
    ],
)
def test_what_chat_completions_do_not_serve_is_refused_by_name(more: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        read(CHAT | more)
    assert caught.value.param == param
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"reasoning": {"effort": "low", "context": "all_turns"}}, "reasoning.context"),
        ({"reasoning": {"generate_summary": "concise"}}, "reasoning.generate_summary"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"reasoning": {"context": "all_turns"}}, "reasoning.context"),
        ({"background_options": {"completion_window": "8h"}}, "background_options.completion_window"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"image": {"context_compression": "enabled"}}, "image.context_compression"),
        ({"access_programs": {"cyber": "standard"}}, "access_programs"),
        ({"tools": [{"type": "function", "name": "f", "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"text": {"colour": "red"}}, "text.colour"),
    ],
)
def test_what_responses_do_not_serve_is_refused_by_name(more: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        read(RESPONSES | more, ResponsesBody)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "more",
    [
        *(
            {"n": 1},
            {"n": None},
            {"audio": None},
            {"modalities": ["text"]},
            {"functions": []},
            {"function_call": "auto"},
        ),
        *({"background": False}, {"truncation": "disabled"}, {"include": []}, {"conversation": None}, {"echo": False}),
        *({"stream_options": {}}, {"stream_options": {"include_obfuscation": False}}, {"logit_bias": {}}),
        *({"prompt_cache_options": {"mode": "implicit", "ttl": "30m"}}, {"prompt_cache_options": {}}),
        *({"reasoning": {}}, {"reasoning": {"summary": None}}, {"image": {}}, {"tools": []}, {"store": True}),
    ],
)
def test_what_asks_for_nothing_is_taken(more: dict[str, Any]) -> None:
    assert read(CHAT | more) == read(CHAT)


def test_where_the_setting_says_so_they_are_left_out_and_told() -> None:
    more = {
        "colour": "red",
        "audio": {"voice": "alloy"},
        "stream_options": {"include_usage": True, "include_obfuscation": True},
        "tools": [{"type": "function", "function": {"name": "f"}, "allowed_callers": ["programmatic"]}],
        "n" * 500: 1,
    }
    body, ignored = read(CHAT | more, unsupported="warn")
    assert ignored == ["colour", "audio", "stream_options.include_obfuscation", "n" * 100, "tools[0].allowed_callers"]
    assert body.stream_options.include_usage
    assert [tool.function.name for tool in body.tools] == ["f"]


def test_a_value_that_is_wrong_is_refused_under_either_setting() -> None:
    for unsupported in typing.get_args(Unsupported):
        with pytest.raises(InvalidRequest, match="temperature"):
            read(CHAT | {"temperature": 5}, unsupported=unsupported)


PART = {"type": "input_file", "file_id": "f"}


@pytest.mark.parametrize(
    ("more", "param", "words"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "'web_search' is not served: only functions are"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0].type", "only functions"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice.type", "function and allowed_tools"),
        ({"include": ["web_search_call"]}, "include[0]", "web_search_call"),
        ({"input": [{"type": "compaction"}]}, "input[0].type", "'compaction' is not served"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type", "function_call_output"),
        ({"input": [{"role": "user", "content": [PART]}]}, "input[0].content[0].type", "'input_file' is not served"),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": [PART]}]},
            "input[0].output[0].type",
            "texts and images",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f", "image_url": None}]}]},
            "input[0].content[0].image_url",
            "not by the id of a file",
        ),
    ],
)
def test_what_an_input_of_responses_has_and_is_not_served_is_named(
    more: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        resolve_responses(read(RESPONSES | more, ResponsesBody).body, **ENDS)
    assert caught.value.param == param
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "messages[0].content[0].type"),
        ({"role": "user", "content": [{"type": "file", "file": {}}]}, "messages[0].content[0].type"),
        ({"role": "function", "name": "f", "content": "x"}, "messages[0].role"),
        ({"role": "assistant", "audio": {"id": "x"}}, "messages[0].audio"),
        ({"role": "assistant", "function_call": {"name": "f", "arguments": ""}}, "messages[0].function_call"),
        ({"role": "assistant", "tool_calls": [{"id": "c", "type": "custom"}]}, "messages[0].tool_calls[0].type"),
    ],
)
def test_what_a_message_of_chat_completions_has_and_is_not_served_is_named(message: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        resolve_chat(read(CHAT | {"messages": [message]}).body, **ENDS)
    assert caught.value.param == param


def test_items_that_clients_send_back_are_taken_with_all_that_stands_in_them() -> None:
    given = [
        {"type": "message", "role": "user", "content": "hi", "status": "completed", "id": "msg_1"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": None, "status": "completed"}
        | {"content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "id": "msg_2", "role": "assistant", "status": "completed", "phase": "final_answer"}
        | {"content": [{"type": "output_text", "text": "hello", "annotations": [], "logprobs": []}]},
        {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"},
        {"type": "function_call_output", "id": "fco_1", "call_id": "c", "output": "4", "status": "completed"},
    ]
    request = resolve_responses(read(RESPONSES | {"input": given}, ResponsesBody).body, **ENDS)
    assert [(message.role, message.text) for message in request.messages] == [
        ("user", "hi"),
        ("assistant", "hello"),
        ("tool", "4"),
    ]


@pytest.mark.parametrize("bias", [{"-1": 1}, {"x": 1}, {"01": 1}, {"1": 101}, {"1": "2"}, {"1": None}])
def test_a_bias_that_makes_no_sense_is_refused(bias: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(CHAT | {"logit_bias": bias})
    assert (caught.value.param or "").startswith("logit_bias")


def test_a_bias_is_by_token_id_and_at_most_so_many() -> None:
    many = {str(token): -100 for token in range(1024)}
    assert resolve_chat(read(CHAT | {"logit_bias": {"0": -100, "7": 1.5}}).body, **ENDS).logit_bias == {0: -100, 7: 1.5}
    completion = read({"model": "m", "prompt": "x", "logit_bias": many}, CompletionsBody).body
    request = resolve_completions(completion, **ENDS)
    assert msgspec.json.decode(msgspec.json.encode(request), type=GenerationRequest) == request
    with pytest.raises(InvalidRequest):
        read(CHAT | {"logit_bias": many | {"1024": 1}})


TOOLS = [{"type": "function", "name": name} for name in ("a", "b", "c")]
CHAT_TOOLS = [{"type": "function", "function": {"name": name}} for name in ("a", "b", "c")]


def test_of_the_tools_those_that_are_allowed_reach_the_engine_and_all_are_shown() -> None:
    choice: dict[str, Any] = {"type": "allowed_tools", "mode": "required", "tools": [TOOLS[2], TOOLS[0]]}
    as_responses = resolve_responses(
        read(RESPONSES | {"tools": TOOLS, "tool_choice": choice}, ResponsesBody).body, **ENDS
    )
    allowed = {"mode": "required", "tools": [CHAT_TOOLS[2], CHAT_TOOLS[0]]}
    more = {"tools": CHAT_TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": allowed}}
    as_chat = resolve_chat(read(CHAT | more).body, **ENDS)
    for request in (as_responses, as_chat):
        assert [tool.name for tool in request.for_engine().tools] == ["a", "c"]
        assert request.tool_choice == "required"
        assert request.is_guided
        assert [tool.name for tool in request.tools] == ["a", "b", "c"]
    assert shown(as_responses)["tool_choice"] == choice


def test_tools_that_are_allowed_must_be_there() -> None:
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "d"}]}
    with pytest.raises(InvalidRequest, match="'d'"):
        resolve_responses(read(RESPONSES | {"tools": TOOLS, "tool_choice": choice}, ResponsesBody).body, **ENDS)


def shown(request: GenerationRequest) -> dict[str, Any]:
    accepted = Accepted(t=0, id=new_response_id(), tenant="t", format="responses", at_ms=0, request=request)
    return response_object(transcript_of([Entry(EntryId(0, 1), accepted)]))


def test_a_response_says_with_what_it_was_asked_for() -> None:
    asked = {
        "truncation": "auto",
        "max_tool_calls": 3,
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "user": "u",
    }
    more = {"reasoning": {"effort": "low"}, "text": {"verbosity": "high"}}
    found = shown(resolve_responses(read(RESPONSES | asked | more, ResponsesBody).body, **ENDS))
    assert {name: found[name] for name in asked} == asked
    assert found["reasoning"] == {"effort": "low", "summary": None}
    assert found["text"] == {"format": {"type": "text"}, "verbosity": "high"}


def test_a_response_that_was_asked_for_nothing_says_so() -> None:
    found = shown(resolve_responses(read(RESPONSES, ResponsesBody).body, **ENDS))
    assert found["truncation"] == "disabled"
    assert found["reasoning"] == {"effort": None, "summary": None}
    assert found["text"] == {"format": {"type": "text"}, "verbosity": "medium"}
    assert [found[name] for name in ("max_tool_calls", "safety_identifier", "prompt_cache_key")] == [None] * 3


def test_log_probabilities_are_included_where_they_are_asked_for_and_nothing_else_asks_for_them() -> None:
    for include in typing.get_args(Include):
        request = resolve_responses(read(RESPONSES | {"include": [include]}, ResponsesBody).body, **ENDS)
        assert request.logprobs is (include == "message.output_text.logprobs")
