"""Asks the real PromQL engine: `promtool test rules` on synthetic series.

Used by `facts`. promtool has no mode that prints the value of an expression, but it tells what it
got when that is not what was expected; so every question expects a sample that cannot be there. The
surprise: its answer is read strictly. A line that is not understood ends the rehearsal, because a
value that was misread would be a lie with a green tick.
Tried with promtool 2.42; the shape is the same in the sources of 2.53 and 3.5.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path

from remediator.errors import ConfigurationError
from remediator.rehearsal.series import Series

# Expected by every question and never there.
IMPOSSIBLE = 'remediator_asks{nobody="has this series"}'
TIMEOUT_S = 120.0
MISSING = (
    "promtool evaluates the queries of playbook tests and is not installed: "
    "apt-get install prometheus, or take it from https://prometheus.io/download/"
)

_ASKED = re.compile(r'^\s*expr: "(?:[^"\\]|\\.)*", time: (?P<time>[^,\s]+),(?P<rest>.*)$')
_SAMPLE = re.compile(
    r'\{(?P<labels>(?:[^"{}]|"(?:[^"\\]|\\.)*")*)\} (?P<value>[-+0-9.eEInfNa]+)(?:, |$)'
)
_LABEL = re.compile(r'"?(?P<name>[^"=,\s]+)"?=(?P<value>"(?:[^"\\]|\\.)*")(?:, |$)')


@dataclass(frozen=True)
class Question:
    """What a query gives at one moment of a test, counted from its start."""

    promql: str
    at: timedelta


@dataclass(frozen=True)
class Answer:
    """What promtool said: the series with their values, or why it could not say.

    Attributes:
        samples: (labels, value) of each series; the metric's name is the label `__name__`.
        error: PromQL's own words when the query cannot be answered.
    """

    samples: tuple[tuple[dict[str, str], float], ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Promtool:
    """The program.

    Attributes:
        path: where it lies.
    """

    path: str

    @classmethod
    def found(cls) -> Promtool:
        """Find it on the PATH.

        Raises:
            ConfigurationError: it is not installed; one line says how to get it.
        """
        path = shutil.which("promtool")
        if path is None:
            raise ConfigurationError(MISSING)
        return cls(path)

    @cached_property
    def version(self) -> str:
        """Its version, as it says itself."""
        done = self._run("--version")
        said = (done.stdout + done.stderr).splitlines()
        return said[0].split(" (")[0].replace(", version", "") if said else "promtool"

    def evaluate(
        self,
        questions: Sequence[Question],
        *,
        series: Sequence[Series],
        interval: timedelta,
        rule_files: Sequence[Path] = (),
    ) -> list[Answer]:
        """Answer every question, in order.

        Raises:
            ConfigurationError: promtool refused the series or the rules, or said something that is
                not understood.
        """
        if not questions:
            return []
        document = _document(questions, series=series, interval=interval, rule_files=rule_files)
        with tempfile.TemporaryDirectory(prefix="remediator-") as folder:
            path = Path(folder) / "asked.yaml"
            # JSON is YAML, and its quoting has no surprises.
            path.write_text(json.dumps(document), encoding="utf-8")
            done = self._run("test", "rules", str(path))
        return self._answers(questions, done.stderr + done.stdout)

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [self.path, *arguments],
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
                encoding="utf-8",
            )
        except (OSError, subprocess.SubprocessError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{self.path} cannot be run: {error}") from error

    def _answers(self, questions: Sequence[Question], said: str) -> list[Answer]:
        blocks: list[list[str]] = []
        before: list[str] = []
        for line in said.split("\n"):
            if _ASKED.match(line):
                blocks.append([])
            (blocks[-1] if blocks else before).append(line)
        if not blocks and (refused := _stripped(before)):
            raise ConfigurationError(f"{self.version}: {'; '.join(refused)}")
        if len(blocks) != len(questions):
            raise ConfigurationError(
                f"{self.version} answered {len(blocks)} of {len(questions)} questions"
            )
        return [self._answer(block) for block in blocks]

    def _answer(self, block: Sequence[str]) -> Answer:
        asked = _ASKED.match(block[0])
        rest = asked["rest"].strip() if asked else ""
        if rest.startswith("err: "):
            return Answer(error=" ".join([rest.removeprefix("err: "), *_stripped(block[1:])]))
        got = [line.strip() for line in block if line.strip().startswith("got: ")]
        if len(got) != 1:
            raise self._strange(block)
        told = got[0].removeprefix("got: ")
        if told == "nil":
            return Answer()
        samples, end = [], 0
        for match in _SAMPLE.finditer(told):
            if match.start() != end:
                raise self._strange(block)
            samples.append((self._labels(match["labels"], block), float(match["value"])))
            end = match.end()
        if end != len(told):
            raise self._strange(block)
        return Answer(samples=tuple(samples))

    def _labels(self, text: str, block: Sequence[str]) -> dict[str, str]:
        found, end = {}, 0
        for match in _LABEL.finditer(text):
            if match.start() != end:
                raise self._strange(block)
            # Go's %q and Python's literals quote alike.
            found[match["name"]] = str(ast.literal_eval(match["value"]))
            end = match.end()
        if end != len(text):
            raise self._strange(block)
        return found

    def _strange(self, block: Sequence[str]) -> ConfigurationError:
        said = " / ".join(_stripped(block))[:500]
        return ConfigurationError(
            f"{self.version} said something that is not understood (tried: 2.42): {said}"
        )


def _stripped(lines: Sequence[str]) -> list[str]:
    noise = ("Unit Testing:", "FAILED:")
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith(noise)]


def _document(
    questions: Sequence[Question],
    *,
    series: Sequence[Series],
    interval: timedelta,
    rule_files: Sequence[Path],
) -> dict[str, object]:
    every = f"{_milliseconds(interval)}ms"
    return {
        "rule_files": [str(path) for path in rule_files],
        "evaluation_interval": every,
        "tests": [
            {
                "interval": every,
                "input_series": [{"series": s.series, "values": s.values} for s in series],
                "promql_expr_test": [
                    {
                        "expr": question.promql,
                        "eval_time": f"{_milliseconds(question.at)}ms",
                        "exp_samples": [{"labels": IMPOSSIBLE, "value": 1}],
                    }
                    for question in questions
                ],
            }
        ],
    }


def _milliseconds(length: timedelta) -> int:
    return length // timedelta(milliseconds=1)
