"""`openchat dead`: look at the dead letters, send them again, delete them."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Awaitable, Callable

import msgspec

from archive.connect import open_archive
from archive.store import Archive
from openchat.table import table
from responses.accept import Intake
from responses.conversations import ConversationReader
from responses.history import Histories
from responses.read import ResponseReader
from responses.requeue import Requeuer
from schemas.errors import BrokerError, OpenChatError, QueueFull, SettingsError, StreamError
from schemas.ids import ResponseId
from schemas.models import ModelEntry, Models, load_models
from schemas.requests import Lane
from schemas.settings import Settings
from streams.connect import Broker, connect_broker
from streams.dead import DeadLetters, StoredLetter
from streams.finished import FinishedStream
from streams.keys import parse_requests_key
from streams.leases import Leases, WorkerRegistry
from streams.logs import ResponseLogs
from streams.queue import RequestQueue
from streams.turns import ConversationTurns

_HEAD = ["letter", "when (UTC)", "response", "model", "tenant", "reason", "attempts"]
_CELL = 48
"""Longest text from outside in a table."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A letter in a list."""

    id: str
    at_ms: int
    response_id: ResponseId | None
    model: str | None
    lane: Lane | None
    tenant: str | None
    reason: str
    error: str
    attempts: int
    stream: str
    entry_id: str


class _Whole(Line, frozen=True, kw_only=True):
    """A letter with everything in it."""

    body: msgspec.Raw


async def list_letters(settings: Settings, *, count: int, as_json: bool) -> None:
    """Print the newest letters, newest first. Raises BrokerError."""
    async with connect_broker(settings) as broker:
        letters = DeadLetters(broker.commands)
        lines = [_line(stored) for stored in await letters.newest(count)]
        total = await letters.count()
    if as_json:
        for line in lines:
            print(msgspec.json.encode(line).decode())
        return
    if lines:
        print("\n".join(table(_HEAD, [_row(line) for line in lines])))
    print(f"{total} dead letters" + (f", the newest {len(lines)} shown" if total > len(lines) else ""))


async def show(settings: Settings, letter_id: str) -> None:
    """Print everything in a letter as JSON. Raises LetterNotFound, BrokerError."""
    async with connect_broker(settings) as broker:
        stored = await DeadLetters(broker.commands).find(letter_id)
    whole = _Whole(**msgspec.structs.asdict(_line(stored)), body=_as_json(stored.letter.body))
    print(msgspec.json.format(msgspec.json.encode(whole), indent=2).decode())


async def requeue(settings: Settings, letter_ids: list[str], *, of_all: bool) -> None:
    """Send letters again and print what became of each. Raises StreamError where one could not be sent."""
    async with connect_broker(settings) as broker, open_archive(settings.database_url) as archive:
        requeuer = await _requeuer(settings, broker, archive)

        async def send(stored: StoredLetter) -> None:
            done = await requeuer.requeue(stored)
            became = f"retry_of {done.retry_of}" if done.retry_of else "to the archiver"
            print(f"{stored.id} {done.response_id} {became}", flush=True)

        await _for_each(DeadLetters(broker.commands), letter_ids, of_all, send, "requeued")


async def drop(settings: Settings, letter_ids: list[str], *, of_all: bool) -> None:
    """Delete letters for good. Raises StreamError where there is one that does not exist."""
    async with connect_broker(settings) as broker:
        letters = DeadLetters(broker.commands)

        async def delete(stored: StoredLetter) -> None:
            await letters.remove(stored.id)
            print(f"{stored.id} dropped", flush=True)

        await _for_each(letters, letter_ids, of_all, delete, "dropped")


async def _for_each(
    letters: DeadLetters,
    letter_ids: list[str],
    of_all: bool,
    work: Callable[[StoredLetter], Awaitable[None]],
    done: str,
) -> None:
    """One that can not be served is named and does not keep the others waiting; a broker that is away does."""
    if of_all == bool(letter_ids):
        raise SettingsError("name the dead letters, or give --all")
    ids = [stored.id async for stored in letters.all()] if of_all else list(dict.fromkeys(letter_ids))
    failed = 0
    for letter_id in ids:
        try:
            await work(await letters.find(letter_id))
        except (BrokerError, QueueFull):
            raise
        except OpenChatError as exc:
            failed += 1
            print(f"openchat: {exc.message}", file=sys.stderr)
    if failed:
        raise StreamError(f"{failed} of {len(ids)} dead letters not {done}")


async def _requeuer(settings: Settings, broker: Broker, archive: Archive) -> Requeuer:
    client = broker.commands
    models = Models(await _known_models(settings, broker))
    logs = ResponseLogs(client, bus_max_entries=settings.bus_max_entries, partitions=broker.partitions)
    intake = Intake(settings, models, logs, lambda model: RequestQueue(client, model))
    turns = ConversationTurns(client)
    conversations = ConversationReader(logs, archive, archive.conversations, turns)
    reader = ResponseReader(logs, archive)
    histories = Histories(reader, conversations, turns)
    return Requeuer(DeadLetters(client), intake, models, logs, FinishedStream(client), histories, reader)


async def _known_models(settings: Settings, broker: Broker) -> list[ModelEntry]:
    """Those of the settings, and what living workers serve: a stack may have been given its model by argument."""
    entries = load_models(settings).entries
    named = {name for entry in entries for name in (entry.name, *entry.aliases)}
    leases = Leases(broker.commands, settings.lease_ms)
    served = {worker.model for worker in await WorkerRegistry(broker.commands, leases).living()}
    return [*entries, *(ModelEntry(name=name) for name in sorted(served - named))]


def _line(stored: StoredLetter) -> Line:
    letter, salvaged = stored.letter, stored.salvaged
    model, lane = parse_requests_key(letter.stream) or (None, None)
    return Line(
        id=stored.id,
        at_ms=stored.at_ms,
        response_id=salvaged.response_id,
        model=model,
        lane=lane,
        tenant=salvaged.tenant if isinstance(salvaged.tenant, str) else None,
        reason=letter.reason,
        error=letter.error,
        attempts=letter.attempts,
        stream=letter.stream,
        entry_id=letter.entry_id,
    )


def _row(line: Line) -> list[str]:
    when = datetime.datetime.fromtimestamp(line.at_ms / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
    texts = (line.response_id, line.model, line.tenant, line.reason)
    return [line.id, when, *(_cell(text) for text in texts), str(line.attempts)]


def _cell(text: str | None) -> str:
    """Text from outside, harmless to a terminal."""
    if text is None:
        return "-"
    plain = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return plain if len(plain) <= _CELL else f"{plain[: _CELL - 1]}…"


def _as_json(body: str) -> msgspec.Raw:
    """The body as it is where it is JSON, else as a JSON string."""
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return msgspec.Raw(msgspec.json.encode(body))
    return msgspec.Raw(body.encode())
