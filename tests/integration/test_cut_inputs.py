"""An input that does not fit is cut once, whoever generates the rest; over Valkey and Redis."""

from __future__ import annotations

from typing import Any

from engine.synthetic.engine import SyntheticEngine
from responses.accept import Prepared
from schemas.events import Failed, Incomplete
from schemas.requests import GenerationRequest, Message
from streams.connect import Broker
from tests.integration.rig import Rig, text_of
from tests.integration.test_worker import has_text
from tests.waiting import until

_HISTORY = [Message(role, "word " * 10) for _ in range(10) for role in ("user", "assistant")]  # type: ignore[arg-type]
_WHOLE = 210
_CUT = 90
"""Words of the input, of which a context of 120 holds so many beside an answer of 30."""


def engine(context: int) -> SyntheticEngine:
    return SyntheticEngine(tokens_per_second=100, ttft_ms=0, capacity=4, context=context)


async def ask(rig: Rig, **changes: Any) -> Prepared:
    messages = [*_HISTORY, Message("user", "word " * 10)]
    request = GenerationRequest(model="synthetic", messages=messages, max_output_tokens=30, **changes)
    prepared = Prepared(request, tenant="default", format="responses", lane="interactive")
    await rig.intake.accept(prepared)
    return prepared


async def test_another_worker_continues_what_was_made_of_the_same_cut_input(broker: Broker) -> None:
    rig = Rig(broker)
    prepared = await ask(rig, truncation="auto")
    async with rig.worker("w-1", engine(context=120)):
        await until(lambda: has_text(rig, prepared.id))
    before = await rig.transcript(prepared.id)
    assert before.terminal is None
    async with rig.worker("w-2", engine(context=1_000)):
        transcript = await rig.ended(prepared.id)
    assert (before.dropped, transcript.dropped) == (12, 12)
    assert transcript.attempts == 2
    assert transcript.text == text_of(30)
    assert isinstance(transcript.terminal, Incomplete)
    assert transcript.terminal.usage.input_tokens == _CUT, "with the larger context of the second all would fit"


async def test_without_truncation_it_fails_and_what_fits_is_not_cut(broker: Broker) -> None:
    rig = Rig(broker)
    async with rig.worker("w", engine(context=120)):
        failed = await rig.ended((await ask(rig)).id)
    assert isinstance(failed.terminal, Failed)
    assert failed.terminal.error.code == "context_length_exceeded"
    async with rig.worker("w", engine(context=1_000)):
        whole = await rig.ended((await ask(rig, truncation="auto")).id)
    assert whole.terminal is not None
    assert (whole.dropped, whole.terminal.usage.input_tokens) == (0, _WHOLE)
