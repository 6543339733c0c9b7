"""The table of `make conformance`: what counts as failed, and why tests were left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.__main__ import missing_result
from tests.conformance.commands import Output, junit_counts
from tests.conformance.report import Case, Counts, Result, has_failed, report

JUNIT = """<testsuites><testsuite>
<testcase name="good"/>
<testcase name="bad"><failure message="short">long</failure></testcase>
<testcase name="left out"><skipped message="no Node"/></testcase>
<testcase name="left out too"><skipped message="no Node"/></testcase>
</testsuite></testsuites>"""


def result(**counts: object) -> Result:
    return Result(suite="s", version="s 1", counts=Counts(**counts))  # type: ignore[arg-type]


def test_a_junit_file_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    path.write_text(JUNIT)
    counts = junit_counts(path, Output("", 1))
    assert counts.passed == 1
    assert counts.failed == [Case("bad", "long")]
    assert [case.name for case in counts.skipped] == ["left out", "left out too"]


@pytest.mark.parametrize("text", ["", "<testsuites><testcase name='good'/></testsuites>", "<testsuites/>", "<half"])
def test_a_run_that_broke_off_is_a_failure_and_shows_what_it_printed(tmp_path: Path, text: str) -> None:
    path = tmp_path / "junit.xml"
    if text:
        path.write_text(text)
    (failure,) = junit_counts(path, Output("no such module", 2)).failed
    assert "exit code 2\nno such module" in failure.text


def test_the_table_has_a_line_for_each_result_and_one_for_each_reason() -> None:
    skipped = [Case("a", "no Node"), Case("b", "no Node"), Case("c", "no sound")]
    text = report([result(passed=2, skipped=skipped), result(failed=[Case("d", "it broke")])])
    assert "| s | s 1 | 2 | 0 | 3 |" in text
    assert "- a; b: no Node (s)\n- c: no sound (s)" in text
    assert "FAILED s: d\nit broke" in text


def test_a_failure_fails_the_run_and_so_does_nothing_at_all() -> None:
    assert has_failed([result(passed=1), result(failed=[Case("d", "")])])
    assert has_failed([])
    assert has_failed([result(skipped=[Case("a", "no Node")])])
    assert not has_failed([result(passed=1), result(skipped=[Case("a", "no Node")])])


@pytest.mark.parametrize(("ci", "is_failure"), [("true", True), ("", False)])
def test_what_a_suite_needs_and_is_not_there_fails_only_in_ci(
    monkeypatch: pytest.MonkeyPatch, ci: str, is_failure: bool
) -> None:
    monkeypatch.setenv("CI", ci)
    counts = missing_result("javascript", "no Node").counts
    assert bool(counts.failed) == is_failure
    assert counts.failed + counts.skipped == [Case("everything", "no Node")]
