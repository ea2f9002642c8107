"""The results of tests: for people, as JUnit XML, as JSON.

Filled by `remediator test`. The surprise: a file that cannot be read is a result, too, so that no
format can hide it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from junitparser import Error, Failure, JUnitXml, TestCase, TestSuite

from remediator.errors import PlaybookError


@dataclass(frozen=True)
class Result:
    """What came of one test.

    Attributes:
        line: where the test stands in its file.
        seconds: how long it took to play.
        differences: what was not as expected; none when it passed.
        timeline: everything that happened.
    """

    path: str
    line: int
    name: str
    seconds: float
    differences: tuple[str, ...]
    timeline: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether all was as expected."""
        return not self.differences


@dataclass(frozen=True)
class Report:
    """All results, in the order in which the tests stand in their files."""

    results: tuple[Result, ...]
    problems: tuple[PlaybookError, ...]

    @property
    def failed(self) -> int:
        """How many tests failed."""
        return sum(not result.passed for result in self.results)

    def summary(self) -> str:
        """Return the last line."""
        count = len(self.results)
        told = f"{count} test{'s' if count != 1 else ''}: {count - self.failed} passed"
        told += f", {self.failed} failed" if self.failed else ""
        wrong = len(self.problems)
        told += f", {wrong} problem{'s' if wrong != 1 else ''} in files" if wrong else ""
        return told

    def document(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {
            "passed": len(self.results) - self.failed,
            "failed": self.failed,
            "problems": [
                {
                    "path": p.path,
                    "line": p.line,
                    "column": p.column,
                    "message": p.message,
                    "hint": p.hint,
                }
                for p in self.problems
            ],
            "tests": [
                {
                    "path": result.path,
                    "line": result.line,
                    "name": result.name,
                    "passed": result.passed,
                    "seconds": round(result.seconds, 3),
                    "differences": list(result.differences),
                    "timeline": list(result.timeline),
                }
                for result in self.results
            ],
        }

    def write_junit(self, path: Path) -> None:
        """Write it as CI systems read it: a suite for each file.

        Raises:
            OSError: it cannot be written.
        """
        document = JUnitXml("remediator test")
        for name in dict.fromkeys([r.path for r in self.results] + [p.path for p in self.problems]):
            document.add_testsuite(self._suite(name))
        document.write(str(path), pretty=True)

    def _suite(self, path: str) -> TestSuite:
        suite = TestSuite(path)
        for result in self.results:
            if result.path == path:
                suite.add_testcase(_case(result))
        for problem in self.problems:
            if problem.path == path:
                case = TestCase(f"line {problem.line}", classname=path)
                case.result = [Error(_printable(str(problem)), "file")]
                suite.add_testcase(case)
        return suite


def _case(result: Result) -> TestCase:
    case = TestCase(_printable(result.name), classname=result.path, time=result.seconds)
    if not result.passed:
        failure = Failure(_printable(result.differences[0]), "expectation")
        failure.text = _printable("\n".join([*result.differences, "", *result.timeline]))
        case.result = [failure]
    case.system_out = _printable("\n".join(result.timeline))
    return case


def _printable(text: str) -> str:
    """Leave out what XML cannot hold: https://www.w3.org/TR/xml/#charsets."""
    return "".join(c if c in "\t\n" or (c >= " " and c not in BEYOND) else "\ufffd" for c in text)


BEYOND = "\ufffe\uffff"


def only(names: Sequence[str], name: str) -> bool:
    """Say whether a test is wanted: all are, or those whose name holds one of these."""
    return not names or any(wanted.casefold() in name.casefold() for wanted in names)
