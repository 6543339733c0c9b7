"""What is missing of a response's choices, generated; most responses have one.

Several run at the same time as far as there are slots, each from where the log leaves it. One that has
ended says so in the log, and is not generated again by whoever takes over. If one fails, the response does.

After a death of the worker or of the engine one choice may be to blame, and an attempt in which others came
further does not count. So then choices begin one by one, those first that have shown nothing yet: the one at which
everything dies is soon alone, and its attempts count.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from consumers.context import AttemptContext
from consumers.output import Output
from consumers.pace import Pace
from consumers.pieces import piece_events
from consumers.slots import ResponseSlots
from consumers.truncation import FittingGeneration
from engine.base import Delta, Generation
from formats.structure import end_events
from formats.transcript import Choice, joined_usage
from schemas.errors import EngineDead, EngineError
from schemas.events import ChoiceEnd, Completed, Incomplete, Terminal, Usage
from schemas.ids import ResponseId
from schemas.requests import RequestEntry


async def generate_choices(
    context: AttemptContext, entry: RequestEntry, output: Output, slots: ResponseSlots, *, is_careful: bool
) -> Terminal:
    """All that is not there yet, up to the terminal event, which is returned and not written.

    `is_careful`: something has died of it, perhaps. Raises RequestError, EngineError, EngineDead, Fenced, LogGone.
    """
    if entry.request.choices == 1:
        end = await _generate(context, entry, output, output.transcript.choices[0])
        return _terminal(output.now_ms(), [end], per_prompt=1)
    several = _SeveralChoices(context, entry, output, slots)
    await several.generate(is_careful=is_careful)
    return _terminal(output.now_ms(), several.ends, per_prompt=entry.request.n)


class _SeveralChoices:
    """Those of one response in one attempt."""

    def __init__(self, context: AttemptContext, entry: RequestEntry, output: Output, slots: ResponseSlots) -> None:
        self._context = context
        self._entry = entry
        self._output = output
        self._slots = slots
        self._choices = [output.transcript.choice(index) for index in range(entry.request.choices)]

    @property
    def ends(self) -> list[ChoiceEnd]:
        """Of those that have ended."""
        return [choice.end for choice in self._choices if choice.end is not None]

    async def generate(self, *, is_careful: bool) -> None:
        """Those that have not ended, begun in their order as slots come."""
        missing = [choice for choice in self._choices if choice.end is None]
        try:
            async with asyncio.TaskGroup() as group:
                if is_careful:
                    for choice in sorted(missing, key=lambda choice: choice.pieces > 0):
                        self._slots.expect(1)
                        await (await self._begin(group, choice)).wait()
                else:
                    self._slots.expect(len(missing))
                    for choice in missing:
                        await self._begin(group, choice)
        except BaseExceptionGroup as failures:
            raise _gravest(failures.exceptions) from failures
        finally:
            self._slots.expect(0)

    async def _begin(self, group: asyncio.TaskGroup, choice: Choice) -> asyncio.Event:
        """As soon as there is a slot. The event says that it has come further, or to its end."""
        await self._slots.take()
        further = asyncio.Event()
        task = group.create_task(self._generate_to_end(choice, further))
        task.add_done_callback(lambda _: self._slots.leave())
        task.add_done_callback(lambda _: further.set())
        return further

    async def _generate_to_end(self, choice: Choice, further: asyncio.Event) -> None:
        output = self._output
        end = await _generate(self._context, self._entry, output, choice, further)
        end = ChoiceEnd(
            choice=choice.index,
            reason=end.reason,
            usage=end.usage,
            calls=choice.calls,
            left=len(self._choices) - len(self.ends) - 1,
        )
        output.write(end_events(output.transcript, output.now_ms(), end), urgent=True)


async def _generate(
    context: AttemptContext, entry: RequestEntry, output: Output, choice: Choice, further: asyncio.Event | None = None
) -> ChoiceEnd:
    """What is missing of one choice; `further` is set with its first piece."""
    request = entry.request.of_choice(choice.index)
    whole = Generation(
        id=_generation_id(entry.id, choice),
        request=request,
        prefix_tokens=tuple(choice.tokens),
        prefix_text=choice.text,
        prefix_pieces=choice.pieces,
    )
    transcript, stall = output.transcript, context.stall
    copied = choice.copied_length
    before = Usage(input_tokens=copied, output_tokens=choice.length - copied)
    offset = len(choice.text) if request.has_bare_prompt and request.logprobs else None
    fitting = FittingGeneration(context.engine, whole, transcript.dropped)
    pace = Pace(context.metrics)
    is_first = True  # the first piece of a generation does not wait for others
    with stall.waiting():
        async with contextlib.aclosing(fitting.deltas()) as deltas:
            async for delta in deltas:
                stall.heard()
                if delta.has_piece:
                    pace.heard(len(delta.tokens) or 1)
                    events = piece_events(transcript, delta, output.now_ms(), choice, offset or 0)
                    output.write(fitting.marked(events), urgent=is_first)
                    context.tokens.add(len(delta.tokens) or 1)
                    if offset is not None:
                        offset += len(delta.text)
                    if is_first:
                        output.leave_place()
                        is_first = False
                        if further is not None:
                            further.set()
                if delta.finish_reason is not None:
                    return _end(delta, before)
                await output.room()
    raise EngineError("The engine stopped without a finish reason.")


def _generation_id(response_id: ResponseId, choice: Choice) -> ResponseId:
    """Engines tell what runs at the same time by it."""
    return ResponseId(f"{response_id}-{choice.index}") if choice.index else response_id


def _end(delta: Delta, before: Usage) -> ChoiceEnd:
    """`before`: what was there when this generation began; what a fork copied is prompt to it."""
    usage = Usage(
        input_tokens=before.input_tokens + delta.input_tokens,
        output_tokens=before.output_tokens + delta.output_tokens,
        cached_tokens=delta.cached_tokens,
        reasoning_tokens=delta.reasoning_tokens,
    )
    return ChoiceEnd(usage=usage, reason=delta.finish_reason or "stop")


def _terminal(t: int, ends: Sequence[ChoiceEnd], *, per_prompt: int) -> Terminal:
    usage = joined_usage(ends, per_prompt)
    reasons = {end.reason for end in ends}
    if "length" in reasons:
        return Incomplete(t=t, usage=usage)
    if "content_filter" in reasons:
        return Incomplete(t=t, usage=usage, reason="content_filter")
    return Completed(t=t, usage=usage)


def _gravest(failures: Sequence[BaseException]) -> BaseException:
    """Of what went wrong at the same time: a dead engine is to be started again, whatever else there is."""
    return next((failure for failure in failures if isinstance(failure, EngineDead)), failures[0])
