"""What the suites found, as one table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec


class Case(msgspec.Struct, frozen=True):
    """A test that did not pass, and what is said about it."""

    name: str
    text: str


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Of one run of one suite."""

    passed: int = 0
    failed: list[Case] = []
    skipped: list[Case] = []


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the table."""

    suite: str
    version: str
    counts: Counts


def has_failed(results: Iterable[Result]) -> bool:
    """Something failed, or nothing was run at all."""
    found = list(results)
    return any(one.counts.failed for one in found) or not sum(one.counts.passed for one in found)


def report(results: Sequence[Result]) -> str:
    """The table in Markdown, then why tests were skipped and what the failed ones say."""
    parts = ["| suite | version | passed | failed | skipped |", "|---|---|---:|---:|---:|"]
    parts += [_line(one) for one in results]
    parts += ["", *_skipped(results)] if any(one.counts.skipped for one in results) else []
    for one in results:
        parts += [f"\nFAILED {one.suite}: {case.name}\n{case.text}" for case in one.counts.failed]
    return "\n".join(parts)


def _line(one: Result) -> str:
    counts = one.counts
    numbers = (counts.passed, len(counts.failed), len(counts.skipped))
    return f"| {' | '.join([one.suite, one.version, *map(str, numbers)])} |"


def _skipped(results: Iterable[Result]) -> list[str]:
    """One line for each reason: the tests, what is said, and the suites."""
    reasons: dict[str, tuple[list[str], list[str]]] = {}
    for one in results:
        for case in one.counts.skipped:
            names, suites = reasons.setdefault(case.text, ([], []))
            names.append(case.name)
            suites.append(one.suite)
    lines = [
        f"- {_joined(names)}: {reason.rstrip('.')} ({_joined(suites)})" for reason, (names, suites) in reasons.items()
    ]
    return ["Skipped:", "", *lines]


def _joined(names: Iterable[str]) -> str:
    """Each once."""
    return "; ".join(dict.fromkeys(names))
