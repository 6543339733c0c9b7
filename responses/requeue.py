"""Sending what lies in a dead letter again.

A request becomes a new response, `retry_of` the old one, through the one door: the old one has ended, or
its log is lost. A fork begins again with what it had copied. What only could not be archived goes to the
archiver again under its own id. Either is done before the letter is deleted, so a crash between leaves a
letter whose content was sent.
"""

from __future__ import annotations

import msgspec

from responses.accept import Fork, Intake, Prepared
from responses.fork import fork_in
from responses.history import Histories
from responses.read import ResponseReader
from schemas.errors import BadEntry, LogGone, ResponseNotFound
from schemas.ids import ResponseId
from schemas.models import Models
from schemas.requests import GenerationRequest, RequestEntry
from streams.dead import DeadLetters, StoredLetter
from streams.finished import FinishedStream
from streams.keys import FINISHED, parse_requests_key
from streams.logs import ResponseLogs
from streams.retry import retry_harmless


class Requeued(msgspec.Struct, frozen=True):
    """What became of a letter."""

    response_id: ResponseId
    retry_of: ResponseId | None
    """None where nothing is generated again: it went to the archiver."""


class Requeuer:
    """Sends dead letters again, in the name of an operator."""

    def __init__(
        self,
        letters: DeadLetters,
        intake: Intake,
        models: Models,
        logs: ResponseLogs,
        finished: FinishedStream,
        histories: Histories,
        reader: ResponseReader,
    ) -> None:
        self._letters = letters
        self._intake = intake
        self._models = models
        self._logs = logs
        self._finished = finished
        self._histories = histories
        self._reader = reader

    async def requeue(self, stored: StoredLetter) -> Requeued:
        """Send it again, and only then delete the letter.

        Raises BadEntry, ModelNotFound, QueueFull, LogGone, BrokerError, and what `Histories.before` raises; then the
        letter is kept.
        """
        is_finished = stored.letter.stream == FINISHED
        requeued = await (self._archive_again(stored) if is_finished else self._ask_again(stored))
        await retry_harmless(lambda: self._letters.remove(stored.id))
        return requeued

    async def _ask_again(self, stored: StoredLetter) -> Requeued:
        place = parse_requests_key(stored.letter.stream)
        if place is None:
            raise BadEntry(f"dead letter {stored.id} does not say from which request stream it came")
        entry = stored.request()
        lane = place[1]
        request = self._without_viewer(entry.request)
        fork = await self._fork_again(stored, entry) if entry.copied else None
        before = await self._histories.before(entry.tenant, request)
        await self._intake.check_room(request.model, lane)
        prepared = Prepared(
            request,
            tenant=entry.tenant,
            format=entry.format,
            lane=lane,
            retry_of=entry.id,
            key=entry.key,
            history=before.messages,
            fork=fork,
            request_id=entry.request_id,
        )
        await self._histories.join(request, prepared.id, before)
        await self._intake.accept(prepared)
        return Requeued(prepared.id, entry.id)

    def _without_viewer(self, request: GenerationRequest) -> GenerationRequest:
        """It goes on though nobody waits for it, by the name that its model has now, with a deadline of its own."""
        return msgspec.structs.replace(
            request,
            model=self._models.find(request.model).name,
            on_disconnect="continue",
            deadline_at_ms=self._intake.deadline_at_ms() if request.deadline_at_ms else 0,
        )

    async def _fork_again(self, stored: StoredLetter, entry: RequestEntry) -> Fork:
        """From its own log: what it was forked from may be gone. Raises LogGone."""
        try:
            return fork_in(await self._reader.read(entry.id))
        except ResponseNotFound as exc:
            raise LogGone(
                f"the log of {entry.id} is gone, and with it the output that this fork begins with: "
                f"drop dead letter {stored.id}, and fork again"
            ) from exc

    async def _archive_again(self, stored: StoredLetter) -> Requeued:
        entry = stored.finished()
        if not await self._logs.exists(entry.id):
            raise LogGone(f"the log of {entry.id} is gone: there is nothing to archive, drop dead letter {stored.id}")
        again = msgspec.structs.replace(entry, letter=stored.id)
        await retry_harmless(lambda: self._finished.send(again))
        return Requeued(entry.id, None)
