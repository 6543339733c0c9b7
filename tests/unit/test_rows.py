"""From a finished log to its row."""

from __future__ import annotations

import pytest

from responses.rows import archived_response
from schemas.errors import LogUnfinished
from schemas.events import (
    Accepted,
    Cancelled,
    Completed,
    ErrorDetail,
    Failed,
    Fence,
    Incomplete,
    InProgress,
    ItemAdded,
    LogEvent,
    Queued,
    Terminal,
    Usage,
    encode_event,
)
from schemas.ids import new_id, new_response_id
from schemas.models import ModelEntry, Models, Prices
from schemas.requests import GenerationRequest, Message
from streams.logs import RawEntry

USAGE = Usage(input_tokens=1000, cached_tokens=600, output_tokens=50, reasoning_tokens=20)
PRICED = Models([ModelEntry(name="m", prices=Prices(input=0.5, cached_input=0.05, output=2))])
ID = new_response_id()


def a_log(terminal: Terminal, *events: LogEvent, key: str = "", **request: object) -> list[RawEntry]:
    asked = GenerationRequest(model="m", messages=[Message("user", "hi")], **request)  # type: ignore[arg-type]
    retried = new_response_id()
    accepted = Accepted(
        t=0, id=ID, tenant="a", format="chat", at_ms=5, request=asked, key=key, lane="batch", retry_of=retried
    )
    written = [InProgress(t=1, engine="synthetic"), *events, terminal]
    raw = [("0-1", encode_event(accepted)), ("0-2", encode_event(Queued(t=0, lane="batch")))]
    raw.append(("1-0", encode_event(Fence(t=1, consumer="w", boot="b"))))
    return raw + [(f"1-{number}", encode_event(event)) for number, event in enumerate(written, 3)]


def test_the_columns_come_from_the_log() -> None:
    key, conversation, parent = new_id(), new_id(), new_response_id()
    raw = a_log(
        Completed(t=70, usage=USAGE),
        key=key.hex(),
        store=False,
        conversation=f"conv_{conversation.hex()}",
        previous_response_id=parent,
    )
    row = archived_response(ID, raw)
    assert (row.engine, row.lane, row.is_stored, row.key_id) == ("synthetic", "batch", False, key)
    assert (row.conversation, row.parent, row.ended_at_ms) == (conversation, parent, 75)
    assert row.retry_of is not None
    assert (row.reasoning_tokens, row.cost_micros, row.error_message) == (20, None, None)


@pytest.mark.parametrize(
    ("terminal", "events", "reason"),
    [
        (Completed(t=2, usage=USAGE), [], "stop"),
        (Completed(t=2, usage=USAGE), [ItemAdded(t=1, item="function_call", name="f")], "tool_calls"),
        (Incomplete(t=2, usage=USAGE), [], "length"),
        (Incomplete(t=2, usage=USAGE, reason="content_filter"), [], "content_filter"),
        (Failed(t=2, error=ErrorDetail("x", "y")), [], None),
        (Cancelled(t=2), [], None),
    ],
    ids=["completed", "with a call", "too long", "filtered", "failed", "cancelled"],
)
def test_the_finish_reason_is_that_of_chat_completions(
    terminal: Terminal, events: list[LogEvent], reason: str | None
) -> None:
    assert archived_response(ID, a_log(terminal, *events)).finish_reason == reason


def test_a_response_costs_what_the_price_list_says() -> None:
    # 400 · 0.5 + 600 · 0.05 + 50 · 2, all in millionths
    assert archived_response(ID, a_log(Completed(t=2, usage=USAGE)), PRICED).cost_micros == 330
    assert archived_response(ID, a_log(Cancelled(t=2, usage=USAGE)), PRICED).cost_micros == 330
    assert Prices(input=1).cost_micros(input_tokens=10, cached_tokens=10, output_tokens=1) == 10
    assert archived_response(ID, a_log(Cancelled(t=2)), Models([ModelEntry(name="m")])).cost_micros is None


def test_a_long_error_is_cut() -> None:
    failed = Failed(t=2, error=ErrorDetail("x", "é" * 1000))
    assert archived_response(ID, a_log(failed)).error_message == "é" * 500


def test_ids_that_are_none_do_not_keep_a_response_out_of_the_archive() -> None:
    raw = a_log(Cancelled(t=2), key="nonsense", conversation="conv_1", previous_response_id="x")
    row = archived_response(ID, raw)
    assert (row.key_id, row.conversation, row.parent) == (None, None, None)


def test_a_log_of_an_older_version_has_a_row() -> None:
    raw = a_log(Cancelled(t=2))
    raw[3] = ("1-3", b'{"type":"in_progress","t":1}')
    raw[0] = ("0-1", raw[0][1].replace(b'"lane":"batch"', b'"unknown":1'))
    row = archived_response(ID, raw)
    assert (row.engine, row.lane, row.key_id, row.is_stored) == ("", "interactive", None, True)


def test_a_log_without_an_end_is_unfinished() -> None:
    with pytest.raises(LogUnfinished):
        archived_response(ID, a_log(Cancelled(t=2))[:-1])
