"""Results for machines: JUnit XML and JSON hold what people are shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from junitparser import JUnitXml

from remediator.errors import PlaybookError
from remediator.rehearsal.report import Report, Result, only


def a_result(name: str = "it is slow", *differences: str, path: str = "a.test.yaml") -> Result:
    return Result(path, 7, name, 0.5, differences, ("1m  told",))


BROKEN = PlaybookError("no key 'x'", path="b.test.yaml", line=3, column=1, hint="did you mean 'y'?")


def test_junit_has_a_suite_a_file_and_what_differs(tmp_path: Path) -> None:
    failed = a_result("it is\x1b fast", "actions: expected 1", "    - expected set\ufffe")
    Report((a_result(), failed), (BROKEN,)).write_junit(tmp_path / "junit.xml")
    first, second = JUnitXml.fromfile(str(tmp_path / "junit.xml"))
    assert (first.name, first.tests, first.failures, first.errors) == ("a.test.yaml", 2, 1, 0)
    assert (second.name, second.tests, second.errors) == ("b.test.yaml", 1, 1)
    passed, failed_case = first
    assert passed.is_passed
    assert failed_case.name == "it is\ufffd fast"
    assert failed_case.result[0].message == "actions: expected 1"
    assert "expected set" in failed_case.result[0].text
    assert "1m  told" in failed_case.result[0].text
    assert "did you mean 'y'?" in next(iter(second)).result[0].message


def test_json_counts_and_names_everything() -> None:
    document = Report((a_result(), a_result("b", "differs")), (BROKEN,)).document()
    assert json.loads(json.dumps(document)) == document
    assert (document["passed"], document["failed"]) == (1, 1)
    assert document["problems"][0]["line"] == 3
    assert [test["passed"] for test in document["tests"]] == [True, False]
    assert document["tests"][1]["differences"] == ["differs"]


@pytest.mark.parametrize(
    ("results", "problems", "said"),
    [
        ((a_result(),), (), "1 test: 1 passed"),
        ((a_result(), a_result("b", "x")), (), "2 tests: 1 passed, 1 failed"),
        ((), (BROKEN,), "0 tests: 0 passed, 1 problem in files"),
    ],
)
def test_the_last_line_says_it_all(
    results: tuple[Result, ...], problems: tuple[PlaybookError, ...], said: str
) -> None:
    assert Report(results, problems).summary() == said


def test_a_test_is_wanted_by_any_part_of_its_name() -> None:
    assert only([], "anything")
    assert only(["SLOW", "other"], "it is slow")
    assert not only(["fast"], "it is slow")
