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


def chat(more: bytes = b"") -> ChatBody:
    return parse_body(CHAT % more, ChatBody, unsupported="reject").body


def test_null_is_nothing_where_nothing_may_be_given_and_a_value_where_one_must() -> None:
    with pytest.raises(InvalidRequest, match="Expected `str`, got `null`") as caught:
        parse_body(b'{"model":null,"messages":[]}', ChatBody, unsupported="reject")
    assert caught.value.param == "model"
    taken = parse_body(b'{"metadata":null}', ChatCompletionUpdateBody, unsupported="reject").body
    assert taken == ChatCompletionUpdateBody(metadata=None)
    with pytest.raises(InvalidRequest, match="missing") as caught:
        parse_body(b"{}", ChatCompletionUpdateBody, unsupported="reject")
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
    body = parse_body(b'{"model":"m","input":"hi","service_tier":%s}' % given, ResponsesBody, unsupported="reject").body
    asked = resolve_responses(body, model="m", default_max=0, deadline_at_ms=0)
    assert (asked.service_tier, asked.lane) == (tier, lane)


def test_content_parts_are_joined_and_stop_becomes_a_list() -> None:
    body = parse_body(
        b"""{"model":"m","stop":"x","messages":[
        {"role":"developer","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}""",
        ChatBody,
        unsupported="reject",
    ).body
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
    body = parse_body(b'{"model":"m","instructions":"be","input":%s}' % given, ResponsesBody, unsupported="reject").body
    request = resolve_responses(body, model="m", default_max=0, deadline_at_ms=0)
    assert request.prompt_messages() == [Message("system", "be"), Message("user", "hi")]


def chat_request(more: bytes) -> GenerationRequest:
    return resolve_chat(chat(more), model="m", default_max=0, deadline_at_ms=0)


def responses_request(given: bytes, more: bytes = b"") -> GenerationRequest:
    raw = b'{"model":"m","input":%s%s}' % (given, more)
    body = parse_body(raw, ResponsesBody, unsupported="reject").body
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
        unsupported="reject",
    ).body
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
    body = parse_body(b'{"model":"m","input":%s}' % given, EmbeddingsBody, unsupported="reject").body
    request = resolve_embeddings(body, model="m", default_max=0, deadline_at_ms=0)
    assert request.embed == EmbeddingInput(inputs=inputs)


@pytest.mark.parametrize("given", [b'["a",1]', b'[""]', b"[-1]", b"[[]]", b"[[-5]]"])
def test_inputs_that_make_no_sense_are_refused(given: bytes) -> None:
    def resolved() -> GenerationRequest:
        body = parse_body(b'{"model":"m","input":%s}' % given, EmbeddingsBody, unsupported="reject").body
        return resolve_embeddings(body, model="m", default_max=0, deadline_at_ms=0)

    with pytest.raises(InvalidRequest):
        resolved()


def completion_request(prompt: bytes, more: bytes = b"") -> GenerationRequest:
    body = parse_body(b'{"model":"m","prompt":%s%s}' % (prompt, more), CompletionsBody, unsupported="reject").body
    return resolve_completions(body, model="m", default_max=0, deadline_at_ms=0)


def test_a_completion_takes_one_prompt_or_several() -> None:
    assert completion_request(b'["a"]').prompt == "a"
    assert completion_request(b"[1,2]").prompt == [1, 2]
    assert completion_request(b'"a"').max_output_tokens == 16
    for given, prompts in ((b'["a","b"]', ["a", "b"]), (b"[[1,2],[3]]", [[1, 2], [3]])):
        request = completion_request(given, b',"n":2')
        assert (request.prompt, request.prompts, request.choices) == (None, prompts, 4)
        assert request.has_bare_prompt


def test_a_choice_asks_for_its_prompt_alone_and_with_a_seed_of_its_own() -> None:
    request = completion_request(b'["a","b"]', b',"n":2,"seed":7')
    asked = [request.of_choice(choice) for choice in range(4)]
    assert [(one.prompt, one.seed) for one in asked] == [("a", 7), ("a", 8), ("b", 9), ("b", 10)]
    assert all((one.choices, one.prompts) == (1, []) for one in asked)
    assert completion_request(b'"a"', b',"n":2').of_choice(1).seed is None
    last = completion_request(b'"a"', b',"n":2,"seed":%d' % (2**63 - 1))
    assert last.of_choice(1).seed == -(2**63), "the API takes no more than 64 bits"
    only = chat_request(b',"seed":7')
    assert only.of_choice(0) is only


@pytest.mark.parametrize("n", [b"0", b"129", b"1.5", b'"2"'])
def test_n_is_1_to_128(n: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat(b',"n":' + n)
    assert caught.value.param == "n"
    assert chat_request(b',"n":128').choices == 128


def test_more_choices_than_a_response_may_have_are_refused() -> None:
    assert completion_request(b'["a","b"]', b',"n":64').choices == 128
    with pytest.raises(InvalidRequest, match="130 choices") as caught:
        completion_request(b'["a","b"]', b',"n":65')
    assert caught.value.param == "prompt"


def test_best_of_is_taken_where_it_asks_for_nothing_more_than_n() -> None:
    assert completion_request(b'"a"', b',"n":2,"best_of":2') == completion_request(b'"a"', b',"n":2')
    with pytest.raises(UnsupportedParameter) as caught:
        completion_request(b'"a"', b',"best_of":2')
    assert caught.value.param == "best_of"


def test_several_choices_are_refused_where_an_api_has_one() -> None:
    for kind, raw in ((ResponsesBody, b'{"model":"m","input":"a","n":2}'), (EmbeddingsBody, b'{"input":"a","n":2}')):
        with pytest.raises(UnsupportedParameter) as caught:
            parse_body(raw, kind, unsupported="reject")
        assert caught.value.param == "n"


def test_a_whole_number_may_be_written_with_a_point() -> None:
    assert chat(b',"max_tokens":16.0,"seed":1e3,"temperature":1.0') == chat(
        b',"max_tokens":16,"seed":1000,"temperature":1'
    )
    for more in (b',"max_tokens":16.5', b',"seed":1e300', b',"temperature":1e999'):
        with pytest.raises(InvalidRequest):
            chat(more)


def test_the_effort_of_reasoning_has_two_names_in_chats_and_one_value() -> None:
    assert chat_request(b',"reasoning":{"effort":"low","summary":"auto"}').reasoning_effort == "low"
    assert chat_request(b',"reasoning":{"effort":"low"},"reasoning_effort":"low"').reasoning_effort == "low"
    with pytest.raises(InvalidRequest) as caught:
        chat_request(b',"reasoning":{"effort":"low"},"reasoning_effort":"high"')
    assert caught.value.param == "reasoning_effort"
