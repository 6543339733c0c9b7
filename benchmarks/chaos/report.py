"""A run as tables in Markdown, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.chaos.checks import Fate
from benchmarks.chaos.faults import Action, Target, count
from benchmarks.chaos.recovery import Spread
from benchmarks.chaos.run import Result

_MOST_SHOWN = 20
_APART = (Fate.DIVERGED, Fate.MISSING)


def fates(result: Result) -> Counter[Fate]:
    """Fate → responses that have it."""
    return Counter(fate for fate in Fate for _ in {r.id for r, p in result.findings.problems if p.fate is fate})


def failures(result: Result, *, is_failover: bool = False) -> list[str]:
    """Why the run has failed; none where it has not. Two fates are an honest limit
    of a failover, and one of a real model's arithmetic."""
    found = fates(result)
    allowed = [Fate.VARIED, *(_APART if is_failover else ())]
    reasons = [f"{number} {fate}" for fate, number in found.items() if fate not in allowed]
    if not is_failover:
        if result.findings.leftovers:
            reasons.append(f"{len(result.findings.leftovers)} leftovers")
        if result.refusals:
            reasons.append(f"{len(result.refusals)} unexplained answers")
    if not result.reached:
        reasons.append("fewer faults counted than planned")
    if not result.findings.checked:
        reasons.append("no response was accepted")
    return reasons


def markdown(title: str, result: Result, *, is_failover: bool = False) -> str:
    """Tables, then what was wrong."""
    reasons = failures(result, is_failover=is_failover)
    blocks = [
        [f"## {title}: {'FAILED, ' + ', '.join(reasons) if reasons else 'passed'}"],
        list(_fault_table(result)),
        list(_response_table(result)),
        list(_fate_table(result)),
        list(_recovery_table(result.recovery)),
        list(_problems(result)),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _fault_table(result: Result) -> Iterator[str]:
    yield from _head(["fault", "target", "counted", "not counted", "responses struck"])
    for target in Target:
        for action in Action:
            struck = sum(f.struck for f in result.faults if f.target is target and f.action is action)
            counted = count(result.faults, target, action)
            missed = count(result.faults, target, action, counted=False)
            if counted or missed:
                yield _row([action, target, counted, missed, struck])
    yield _row(["all", "", sum(f.is_counted for f in result.faults), sum(not f.is_counted for f in result.faults), ""])


def _response_table(result: Result) -> Iterator[str]:
    yield from _head(["responses checked", "number"])
    for kind, number in sorted(result.by_kind.items()):
        yield _row([kind, f"{number:,}"])
    yield _row(["all", f"{result.findings.checked:,}"])


def _fate_table(result: Result) -> Iterator[str]:
    found = fates(result)
    counts = result.counts
    yield from _head(["what became of them", "number"])
    for fate in Fate:
        yield _row([fate, found[fate]])
    for name in ("reconnects", "changes of gateway", "503", "requests cut before an answer"):
        yield _row([name, counts[name]])
    yield _row(["all archived, after the load", f"{result.findings.caught_up_s:.1f} s"])


def _recovery_table(recovery: dict[Target, Spread]) -> Iterator[str]:
    shown = {target: spread for target, spread in recovery.items() if spread.streams}
    if not shown:
        return
    yield "Seconds from a kill to the next new token at the client:"
    yield ""
    yield from _head(["killed", "kills measured", "streams", "p50", "p95", "max"])
    for target, spread in shown.items():
        times = (f"{s:.2f}" for s in (spread.p50, spread.p95, spread.longest))
        yield _row([target, spread.faults, spread.streams, *times])


def _problems(result: Result) -> Iterator[str]:
    problems = result.findings.problems
    for record, problem in problems[:_MOST_SHOWN]:
        ids = f"{record.id} ({record.ask.kind}, {record.ask.tokens} tokens, {record.reconnects} reconnects)"
        yield f"- {problem.fate}: {ids}: {problem.text}"
    if len(problems) > _MOST_SHOWN:
        yield f"- and {len(problems) - _MOST_SHOWN} more"
    yield from (f"- left: {line}" for line in result.findings.leftovers[:_MOST_SHOWN])
    yield from (f"- unexplained answer: {line}" for line in result.refusals[:_MOST_SHOWN])
    if result.findings.cut_off:
        yield (
            f"- {result.findings.cut_off} logs without a request: their gateway or the broker died between the two, "
            "and nobody was told that they were accepted"
        )


def _head(names: Sequence[object]) -> Iterator[str]:
    yield _row(names)
    yield _row(["---"] + ["---:"] * (len(names) - 1))


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def as_dict(result: Result, *, is_failover: bool = False) -> dict[str, Any]:
    """For programs."""
    return {
        "failures": failures(result, is_failover=is_failover),
        "took_s": round(result.took_s, 1),
        "faults": [
            {"target": target, "action": action, "counted": count(result.faults, target, action)}
            for target in Target
            for action in Action
            if count(result.faults, target, action)
        ],
        "counted": sum(fault.is_counted for fault in result.faults),
        "checked": result.findings.checked,
        "by_kind": dict(result.by_kind),
        "fates": {str(fate): fates(result)[fate] for fate in Fate},
        "counts": dict(result.counts),
        "cut_off": result.findings.cut_off,
        "recovery_s": {str(target): vars(spread) for target, spread in result.recovery.items() if spread.streams},
        "problems": [f"{problem.fate}: {record.id}: {problem.text}" for record, problem in result.findings.problems],
        "left": result.findings.leftovers,
        "refusals": result.refusals,
    }
