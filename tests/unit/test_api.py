"""Bodies as clients send them."""

from __future__ import annotations

import pytest

from responses.resolve import resolve_chat, resolve_responses
from schemas.api import ChatBody, ResponsesBody, parse_body
from schemas.errors import InvalidRequest, UnsupportedParameter
from schemas.requests import Message

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


@pytest.mark.parametrize("more", [b',"n":2', b',"logprobs":true', b',"tools":[{}]', b',"store":false'])
def test_what_can_not_be_done_is_refused_even_where_unknown_parameters_are_allowed(more: bytes) -> None:
    with pytest.raises(UnsupportedParameter):
        chat(more, allow_unknown=True)


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
