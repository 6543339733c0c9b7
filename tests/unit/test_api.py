"""Bodies as clients send them."""

from __future__ import annotations

import pytest

from responses.resolve import resolve_chat, resolve_completions, resolve_embeddings, resolve_responses
from schemas.api import parse_body
from schemas.bodies import ChatBody, ChatCompletionUpdateBody, CompletionsBody, EmbeddingsBody, ResponsesBody
from schemas.errors import InvalidRequest, UnsupportedParameter
from schemas.requests import EmbeddingInput, GenerationRequest, ImageContent, Message, OutputFormat, TextContent
from schemas.tools import Tool, ToolCall, ToolName

CHAT = b'{"model":"m","messages":[{"role":"user","content":"hi"}]%s}'


def chat(more: bytes = b"", *, allow_unknown: bool = False) -> ChatBody:
    return parse_body(CHAT % more, ChatBody, allow_unknown=allow_unknown)


def test_unknown_parameters_are_refused_by_name_unless_a_setting_allows_them() -> None:
    with pytest.raises(UnsupportedParameter, match="'colour'") as caught:
        chat(b',"colour":"red"')
    assert caught.value.param == "colour"
    assert chat(b',"colour":"red"', allow_unknown=True) == chat()


@pytest.mark.parametrize("more", [b',"n":1', b',"n":null', b',"logprobs":false', b',"tools":[]', b',"store":true'])
def test_parameters_that_ask_for_nothing_are_ignored(more: bytes) -> None:
    assert chat(more) == chat()


@pytest.mark.parametrize("more", [b',"n":2', b',"audio":{}', b',"logit_bias":{"1":2}'])
def test_what_can_not_be_done_is_refused_even_where_unknown_parameters_are_allowed(more: bytes) -> None:
    with pytest.raises(UnsupportedParameter):
        chat(more, allow_unknown=True)


def test_null_is_nothing_where_nothing_may_be_given_and_a_value_where_one_must() -> None:
    with pytest.raises(InvalidRequest, match="Expected `str`, got `null`") as caught:
        parse_body(b'{"model":null,"messages":[]}', ChatBody, allow_unknown=False)
    assert caught.value.param == "model"
    taken = parse_body(b'{"metadata":null}', ChatCompletionUpdateBody, allow_unknown=False)
    assert taken == ChatCompletionUpdateBody(metadata=None)
    with pytest.raises(InvalidRequest, match="missing") as caught:
        parse_body(b"{}", ChatCompletionUpdateBody, allow_unknown=False)
    assert caught.value.param == "metadata"


@pytest.mark.parametrize(
    ("given", "tier", "lane"),
    [
        (b"null", None, "interactive"),
        (b'"auto"', "default", "interactive"),
        (b'"default"', "default", "interactive"),
        (b'"scale"', "default", "interactive"),
        (b'"priority"', "priority", "interactive"),
        (b'"fast"', "priority", "interactive"),
        (b'"flex"', "flex", "batch"),
    ],
)
def test_a_service_tier_is_a_lane(given: bytes, tier: str | None, lane: str) -> None:
    asked = resolve_chat(chat(b',"service_tier":' + given), model="m", default_max=0, deadline_at_ms=0)
    assert (asked.service_tier, asked.lane) == (tier, lane)
    body = parse_body(b'{"model":"m","input":"hi","service_tier":%s}' % given, ResponsesBody, allow_unknown=False)
    asked = resolve_responses(body, model="m", default_max=0, deadline_at_ms=0)
    assert (asked.service_tier, asked.lane) == (tier, lane)


def test_content_parts_are_joined_and_stop_becomes_a_list() -> None:
    body = parse_body(
        b"""{"model":"m","stop":"x","messages":[
        {"role":"developer","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}""",
        ChatBody,
        allow_unknown=False,
    )
    request = resolve_chat(body, model="canonical", default_max=7, deadline_at_ms=5)
    assert request.messages == [Message("developer", "ab")]
    assert (request.model, request.stop, request.max_output_tokens, request.deadline_at_ms) == (
        "canonical",
        ["x"],
        7,
        5,
    )


def test_both_maxima_at_once_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="not both"):
        resolve_chat(chat(b',"max_tokens":1,"max_completion_tokens":1'), model="m", default_max=0, deadline_at_ms=0)


@pytest.mark.parametrize(
    "given", [b'"hi"', b'[{"role":"user","content":"hi"}]', b'[{"type":"message","role":"user","content":"hi"}]']
)
def test_an_input_is_a_text_or_messages(given: bytes) -> None:
    body = parse_body(b'{"model":"m","instructions":"be","input":%s}' % given, ResponsesBody, allow_unknown=False)
    request = resolve_responses(body, model="m", default_max=0, deadline_at_ms=0)
    assert request.prompt_messages() == [Message("system", "be"), Message("user", "hi")]


def chat_request(more: bytes) -> GenerationRequest:
    return resolve_chat(chat(more), model="m", default_max=0, deadline_at_ms=0)


def responses_request(given: bytes, more: bytes = b"") -> GenerationRequest:
    raw = b'{"model":"m","input":%s%s}' % (given, more)
    body = parse_body(raw, ResponsesBody, allow_unknown=False)
    return resolve_responses(body, model="m", default_max=0, deadline_at_ms=0)


SCHEMA = b'{"type":"object"}'


def test_tools_and_their_choice_are_the_same_in_both_apis() -> None:
    as_chat = chat_request(
        b',"tools":[{"type":"function","function":{"name":"f","parameters":%s}}],'
        b'"tool_choice":{"type":"function","function":{"name":"f"}}' % SCHEMA
    )
    as_responses = responses_request(
        b'"hi"',
        b',"tools":[{"type":"function","name":"f","parameters":%s}],"tool_choice":{"type":"function","name":"f"}'
        % SCHEMA,
    )
    assert as_chat.tools == as_responses.tools == [Tool(name="f", parameters={"type": "object"})]
    assert as_chat.tool_choice == as_responses.tool_choice == ToolName("f")
    assert as_chat.is_guided


@pytest.mark.parametrize("choice", [b'"required"', b'{"type":"function","function":{"name":"g"}}'])
def test_a_choice_of_a_tool_that_is_not_there_is_refused(choice: bytes) -> None:
    with pytest.raises(InvalidRequest):
        chat_request(b',"tool_choice":%s' % choice)


def test_a_schema_for_the_output_is_the_same_in_both_apis() -> None:
    wanted = OutputFormat(schema={"type": "object"}, name="n")
    as_chat = chat_request(b',"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":%s}}' % SCHEMA)
    as_responses = responses_request(
        b'"hi"', b',"text":{"format":{"type":"json_schema","name":"n","schema":%s}}' % SCHEMA
    )
    assert as_chat.output_format == as_responses.output_format == wanted
    assert chat_request(b',"response_format":{"type":"json_object"}').output_format == OutputFormat()


def test_calls_and_their_results_become_turns_in_both_apis() -> None:
    body = parse_body(
        b"""{"model":"m","messages":[{"role":"user","content":"2+2?"},
        {"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]},
        {"role":"tool","tool_call_id":"c1","content":"4"}]}""",
        ChatBody,
        allow_unknown=False,
    )
    wanted = [
        Message("user", "2+2?"),
        Message("assistant", "", [ToolCall("c1", "f", "{}")]),
        Message("tool", "4", [], "c1"),
    ]
    assert resolve_chat(body, model="m", default_max=0, deadline_at_ms=0).messages == wanted
    given = b"""[{"role":"user","content":"2+2?"},{"type":"reasoning","id":"rs_1","summary":[]},
    {"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},
    {"type":"function_call_output","call_id":"c1","output":"4"}]"""
    assert responses_request(given).messages == wanted


def test_images_keep_their_place_among_the_texts() -> None:
    url = b"data:image/png;base64,AAAA"
    request = responses_request(
        b'[{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_image","image_url":"%s"}]}]' % url
    )
    assert request.messages[0].parts == [TextContent("a"), ImageContent(url.decode())]
    assert request.messages[0].text == "a"


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        (b'"a"', ["a"]),
        (b'["a","b"]', ["a", "b"]),
        (b"[1,2]", [[1, 2]]),
        (b"[[1,2],[3]]", [[1, 2], [3]]),
    ],
)
def test_inputs_are_texts_or_token_ids(given: bytes, inputs: list[str | list[int]]) -> None:
    body = parse_body(b'{"model":"m","input":%s}' % given, EmbeddingsBody, allow_unknown=False)
    request = resolve_embeddings(body, model="m", default_max=0, deadline_at_ms=0)
    assert request.embed == EmbeddingInput(inputs=inputs)


@pytest.mark.parametrize("given", [b'["a",1]', b'[""]', b"[-1]", b"[[]]", b"[[-5]]"])
def test_inputs_that_make_no_sense_are_refused(given: bytes) -> None:
    body = parse_body(b'{"model":"m","input":%s}' % given, EmbeddingsBody, allow_unknown=False)
    with pytest.raises(InvalidRequest):
        resolve_embeddings(body, model="m", default_max=0, deadline_at_ms=0)


def test_a_completion_takes_one_prompt() -> None:
    def resolved(prompt: bytes) -> GenerationRequest:
        body = parse_body(b'{"model":"m","prompt":%s}' % prompt, CompletionsBody, allow_unknown=False)
        return resolve_completions(body, model="m", default_max=0, deadline_at_ms=0)

    assert resolved(b'["a"]').prompt == "a"
    assert resolved(b"[1,2]").prompt == [1, 2]
    assert resolved(b'"a"').max_output_tokens == 16
    with pytest.raises(UnsupportedParameter):
        resolved(b'["a","b"]')
