"""Is what the clients saw exactly what was generated, once, and what the archive keeps?"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.chaos.asks import Ask
from benchmarks.chaos.frames import data_of, entry_id, is_text, split_frames
from benchmarks.chaos.record import Record
from formats.chat import chat_completion, encode_chat
from formats.responses import encode_responses, response_object
from formats.transcript import Transcript, transcript_of
from schemas.archived import StoredEntry
from schemas.events import Entry
from streams.logs import decode_entry

_WINDOW = 24
"""Characters that tell a place in a text."""
_ENDS = ("response.completed", "response.incomplete", "response.failed")


class Fate(StrEnum):
    """What can be wrong with a response."""

    LOST = "lost"
    DUPLICATED = "duplicated"
    OUT_OF_ORDER = "out of order"
    DIVERGED = "diverged"
    WRONG = "wrong"
    VARIED = "another wording"
    MISSING = "missing on the new primary"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one response."""

    fate: Fate
    text: str


def check_seen(record: Record) -> list[Problem]:
    """What the client can tell by itself."""
    problems = []
    if record.refusal:
        is_diverged = "stream_diverged" in record.refusal
        problems.append(Problem(Fate.DIVERGED if is_diverged else Fate.LOST, record.refusal))
    if record.is_late:
        problems.append(Problem(Fate.LOST, f"not finished in time; {len(record.frames)} events came"))
    if problems:
        return problems
    return _check_stream(record) if record.ask.kind.is_stream else _check_answer(record)


def _check_stream(record: Record) -> list[Problem]:
    frames = record.frames.all()
    events: list[dict[str, Any]] = [msgspec.json.decode(data_of(frame)) for frame in frames]
    errors = [event["error"] for event in events if event.get("error")]
    if errors:
        fate = Fate.DIVERGED if errors[0]["code"] == "stream_diverged" else Fate.LOST
        return [Problem(fate, f"the stream ended with the error {errors[0]['code']}: {errors[0]['message']}")]
    if record.ask.kind.is_chat:
        pieces = [e["choices"][0]["delta"]["content"] for e, f in zip(events, frames, strict=True) if is_text(f)]
        ends = sum(1 for e in events if e["choices"] and e["choices"][0]["finish_reason"])
        used = [e["usage"]["completion_tokens"] for e in events if e.get("usage")]
        problems = _check_order([int(i.partition("-")[2]) for i in map(entry_id, frames) if i], is_dense=False)
    else:
        pieces = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
        last = [event for event in events if event["type"] in _ENDS]
        ends, used = len(last), [event["response"]["usage"]["output_tokens"] for event in last]
        problems = _check_order([event["sequence_number"] for event in events], is_dense=True)
    problems += _check_pieces(pieces, record.ask)
    if ends != 1:
        problems.append(Problem(Fate.LOST if not ends else Fate.DUPLICATED, f"{ends} terminal events"))
    if used != [record.ask.output_tokens] and not record.ask.is_model:
        problems.append(Problem(Fate.WRONG, f"usage {used} for {record.ask.output_tokens} tokens"))
    return problems


def _check_order(numbers: Sequence[int], *, is_dense: bool) -> list[Problem]:
    """Sequences or entry numbers; a chat stream shows some entries only, so holes in it say nothing."""
    problems = []
    highest = -1
    for number in numbers:
        if number <= highest:
            fate = Fate.DUPLICATED if number == highest else Fate.OUT_OF_ORDER
            problems.append(Problem(fate, f"{number} after {highest}"))
        elif is_dense and number > highest + 1:
            problems.append(Problem(Fate.LOST, f"{number} after {highest}"))
        highest = max(highest, number)
    return problems[:3]


def _check_pieces(pieces: Sequence[str], ask: Ask) -> list[Problem]:
    if "".join(pieces) == ask.text or ask.is_model:
        return []
    right = ask.text.split()
    seen = "".join(pieces).split()
    missing, twice = len(set(right) - set(seen)), len(seen) - len(set(seen))
    if missing:
        return [Problem(Fate.LOST, f"{missing} of {len(right)} words are not in the text {_short(pieces)}")]
    if twice and len(set(right)) == len(right):
        return [Problem(Fate.DUPLICATED, f"{twice} words came twice in the text {_short(pieces)}")]
    return [Problem(Fate.WRONG, f"the text is {_short(pieces)}, not {_short([ask.text])}")]


def _short(pieces: Sequence[str]) -> str:
    text = "".join(pieces)
    return repr(text if len(text) <= 80 else f"{text[:40]} … {text[-40:]}")


def _check_answer(record: Record) -> list[Problem]:
    answer: dict[str, Any] = msgspec.json.decode(record.answer)
    if record.ask.kind.is_chat:
        text, used = answer["choices"][0]["message"]["content"], answer["usage"]["completion_tokens"]
    elif answer["status"] not in ("completed", "incomplete"):
        return [Problem(Fate.LOST, f"the status is {answer['status']}, {answer['error']}")]
    else:
        text, used = answer["output"][0]["content"][0]["text"], answer["usage"]["output_tokens"]
    problems = _check_pieces([text], record.ask)
    if used != record.ask.output_tokens and not record.ask.is_model:
        problems.append(Problem(Fate.WRONG, f"usage {used} for {record.ask.output_tokens} tokens"))
    return problems


def check_archived(record: Record, stored: list[StoredEntry], rows: dict[str, tuple[int, int]]) -> list[Problem]:
    """The archived log, translated, must be what the client saw, event for event."""
    count, used = rows.get(record.id, (0, 0))
    entries = [decode_entry(entry.id, entry.event.encode()) for entry in stored]
    transcript = transcript_of(entries)
    problems = _check_wording(record.ask, entries) if record.ask.is_model else []
    if count != 1 or used != (_counted(transcript) if record.ask.is_model else record.ask.output_tokens):
        problems.append(Problem(Fate.WRONG, f"{count} rows in the archive, {used} tokens in it"))
    tail = [entry for entry in entries if not entry.id.is_fence]
    if record.ask.kind.is_stream:
        return problems + _compare(record.frames.all(), archived_frames(tail, is_chat=record.ask.kind.is_chat))
    if not record.answer:
        return problems
    right = chat_completion(transcript) if record.ask.kind.is_chat else response_object(transcript)
    if msgspec.json.decode(record.answer) != msgspec.json.decode(msgspec.json.encode(right)):
        problems.append(Problem(Fate.WRONG, "the answer is not what the archived log gives"))
    return problems


def _check_wording(ask: Ask, entries: Sequence[Entry]) -> list[Problem]:
    """A real model's text is that of the uninterrupted run, or another one; but where a takeover lost or
    repeated something, the uninterrupted text goes on behind it from another place."""
    transcript = transcript_of(entries)
    text = transcript.text
    if text == ask.text:
        used, right = _counted(transcript), ask.output_tokens
        return [] if used == right else [Problem(Fate.WRONG, f"{used} tokens were counted, uninterrupted {right}")]
    for index, entry in enumerate(entries):
        seam = len(transcript_of(entries[:index]).text) if entry.id.is_fence else 0
        behind = text[seam : seam + _WINDOW]
        is_right_before = seam and len(behind) == _WINDOW and text[:seam] == ask.text[:seam]
        if is_right_before and behind != ask.text[seam : seam + _WINDOW] and behind in ask.text:
            return [Problem(Fate.WRONG, f"after the takeover at character {seam} comes {behind!r}")]
    same = next((i for i, (a, b) in enumerate(zip(text, ask.text, strict=False)) if a != b), len(text))
    return [Problem(Fate.VARIED, f"another text from character {same} on")]


def _counted(transcript: Transcript) -> int:
    return transcript.terminal.usage.output_tokens if transcript.terminal else 0


def archived_frames(tail: Sequence[Entry], *, is_chat: bool) -> list[bytes]:
    """What a client must have seen of a whole log."""
    encode = encode_chat if is_chat else encode_responses
    return split_frames(b"".join(encode(tail, index) for index in range(len(tail))))


def _compare(seen: list[bytes], right: list[bytes]) -> list[Problem]:
    if seen == right:
        return []
    if len(seen) != len(right):
        fate = Fate.LOST if len(seen) < len(right) else Fate.DUPLICATED
        return [Problem(fate, f"{len(seen)} events were seen, the archived log gives {len(right)}")]
    for mine, archived in zip(seen, right, strict=True):
        same_id = entry_id(mine) == entry_id(archived)
        if not same_id or msgspec.json.decode(data_of(mine)) != msgspec.json.decode(data_of(archived)):
            return [Problem(Fate.WRONG, f"seen {mine[:200]!r}, archived {archived[:200]!r}")]
    return []


def archived_rows(path: Path) -> dict[str, tuple[int, int]]:
    """Response id → (rows that have a log, output tokens), read without any code of the product's."""
    query = (
        "SELECT hex(r.id), count(l.response_id), max(r.output_tokens) FROM responses r "
        "JOIN response_logs l ON l.response_id = r.id GROUP BY r.id"
    )
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        return {f"resp_{key.lower()}": (rows, tokens) for key, rows, tokens in connection.execute(query)}
