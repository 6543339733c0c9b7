"""The end of a run: wait until everything is archived, then look at every response."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from archive.connect import open_archive
from benchmarks.chaos.checks import Fate, Problem, archived_rows, check_archived, check_seen
from benchmarks.chaos.lookout import Left, Lookout
from benchmarks.chaos.record import Record
from benchmarks.chaos.waiting import until
from openchat.stack import default_database_url
from schemas.archived import StoredEntry
from schemas.errors import BrokerError
from schemas.events import TERMINAL
from schemas.ids import ResponseId
from streams.logs import decode_entry


@dataclass
class Findings:
    """What became of the responses of a run."""

    checked: int = 0
    problems: list[tuple[Record, Problem]] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    """What is left in the broker and should not be."""
    cut_off: int = 0
    """Logs whose request never got into the queue: their gateway died between, nobody was told that
    they were accepted."""
    logs: dict[str, list[StoredEntry]] = field(default_factory=dict)
    caught_up_s: float = 0.0
    """How long the archiver needed when the load had ended."""


async def settle(
    data_dir: Path, lookout: Lookout, records: list[Record], limit_s: float, *, is_failover: bool = False
) -> Findings:
    """Everything that can be said when no client asks any more."""
    findings = Findings(checked=len(records))
    began = time.monotonic()
    is_lost = any(record.is_late for record in records)  # then it will never be clean
    left = await _until_clean(lookout, 1.0 if is_lost else limit_s)
    findings.caught_up_s = time.monotonic() - began
    rows = archived_rows(data_dir / "archive.sqlite3")
    async with open_archive(default_database_url(data_dir)) as archive:
        for record in records:
            problems = check_seen(record)
            stored = await archive.read_log(ResponseId(record.id))
            if stored is not None:
                findings.logs[record.id] = stored
                if not problems:
                    problems = check_archived(record, stored, rows)
            else:
                problems.append(Problem(Fate.LOST, "it is not in the archive"))
            if problems and is_failover:
                problems = await _after_failover(record, problems, left, lookout)
            findings.problems += [(record, problem) for problem in problems]
    await _judge_leftovers(findings, left, lookout, {record.id for record in records})
    return findings


async def _after_failover(record: Record, problems: list[Problem], left: Left, lookout: Lookout) -> list[Problem]:
    """What an asynchronous replica had not yet got is gone: tell that from what the product has lost."""
    if "invalid_cursor" in record.refusal:
        return [Problem(Fate.DIVERGED, record.refusal)]
    if all(problem.fate is not Fate.LOST for problem in problems) or not left.is_clean:
        return problems
    log = await lookout.log_of(ResponseId(record.id))
    if not log:
        return [Problem(Fate.MISSING, "its log is not on the new primary")]
    is_ended = isinstance(decode_entry(*log[-1]).event, TERMINAL)
    missing = "entry in oc:finished" if is_ended else "request"
    return [Problem(Fate.MISSING, f"its log is on the new primary, its {missing} is not; {problems[0].text}")]


async def _until_clean(lookout: Lookout, limit_s: float) -> Left:
    """Nothing waits, nothing runs, nothing is to be archived; or what there is when the wait is over."""
    found: list[Left] = []

    async def is_clean() -> bool:
        try:
            found[:] = [await lookout.left()]
        except BrokerError:
            return False
        return found[0].is_clean

    await until(is_clean, limit_s, 0.2)
    return found[0] if found else await lookout.left()


async def _judge_leftovers(findings: Findings, left: Left, lookout: Lookout, accepted: set[str]) -> None:
    counts = {"held": left.held, "waiting": left.waiting, "to archive": left.to_archive, "dead": left.dead_letters}
    findings.leftovers = [f"{count} {name}" for name, count in counts.items() if count]
    for response_id in left.open:
        log = await lookout.log_of(ResponseId(response_id))
        if response_id not in accepted and len(log) == 2:
            findings.cut_off += 1
        else:
            findings.leftovers.append(f"{response_id} is open, with {len(log)} entries")
