"""Facts of a rehearsal: the engine's `MetricSource`, answered by promtool from scripted series.

Made by `stage`, one for each test. The surprise: what is asked once is evaluated for every second
of the next minutes at the same time, because starting promtool takes longer than a hundred queries;
when an action changes a series, what lies after that moment is forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from remediator.clock import Clock
from remediator.errors import ConfigurationError
from remediator.model.verdict import Reading, ReadingStatus, Vector
from remediator.rehearsal.promtool import Answer, Promtool, Question
from remediator.rehearsal.series import Series, replace

SECOND = timedelta(seconds=1)
# Seconds that are evaluated together with a question.
AHEAD = 300


class RehearsedFacts:
    """Prometheus as a test describes it.

    Attributes:
        scraped: the series as they are now.
        failed: why nothing can be said at all; the engine takes what it raised for a crash.
        start: the controller's time of the series' first sample.
    """

    def __init__(
        self,
        promtool: Promtool,
        *,
        clock: Clock,
        series: Sequence[Series],
        interval: timedelta,
        rule_files: Sequence[Path] = (),
    ) -> None:
        self.promtool = promtool
        self.clock = clock
        self.start = clock()
        self.scraped = tuple(series)
        self.interval = interval
        self.rule_files = tuple(rule_files)
        self.failed: ConfigurationError | None = None
        self._known: dict[Question, Answer] = {}
        self._queries: dict[str, None] = {}

    def change(self, series: Sequence[Series], *, after: datetime) -> None:
        """Let other samples be scraped from the first scrape after this moment on."""
        passed = after - self.start
        index = int(passed / self.interval) + 1
        self.scraped = replace(self.scraped, series, at=index)
        self._known = {q: a for q, a in self._known.items() if q.at <= passed}

    async def query(self, promql: str) -> Reading:
        """Return the one number that a query gives now, or why there is none."""
        return self._reading(promql, self.clock())

    async def series(self, promql: str) -> Vector:
        """Return every number that a query gives now, with its labels."""
        now = self.clock()
        (answer,) = self._answers([Question(promql, now - self.start)])
        values = tuple(
            (labels, v if math.isfinite(v) else math.nan) for labels, v in answer.samples
        )
        return Vector(query=promql, at=now, values=values, error=answer.error)

    async def history(
        self, promql: str, *, end: datetime, length: timedelta, step: timedelta
    ) -> list[Reading]:
        """Return what a query gave over the past `length`; nothing unless it is one series."""
        count = length // step
        times = [end - step * back for back in range(count, -1, -1)]
        times = [at for at in times if at >= self.start]
        answers = self._answers([Question(promql, at - self.start) for at in times])
        if any(answer.error or len(answer.samples) > 1 for answer in answers):
            return []
        return [
            Reading.of(promql, at, answer.samples[0][1])
            for at, answer in zip(times, answers, strict=True)
            if answer.samples
        ]

    def _reading(self, promql: str, now: datetime) -> Reading:
        (answer,) = self._answers([Question(promql, now - self.start)])
        if answer.error:
            return Reading(promql, now, ReadingStatus.ERROR, detail=answer.error)
        if not answer.samples:
            return Reading(promql, now, ReadingStatus.EMPTY)
        if len(answer.samples) > 1:
            count = f"{len(answer.samples)} series"
            return Reading(promql, now, ReadingStatus.MANY, detail=count)
        return Reading.of(promql, now, answer.samples[0][1])

    def _answers(self, questions: Sequence[Question]) -> list[Answer]:
        self._queries |= dict.fromkeys(question.promql for question in questions)
        missing = dict.fromkeys(q for q in questions if q not in self._known)
        if missing:
            first = -(-max(question.at for question in missing) // SECOND)
            ahead = (
                Question(promql, SECOND * second)
                for promql in self._queries
                for second in range(first, first + AHEAD)
            )
            missing |= dict.fromkeys(q for q in ahead if q not in self._known)
            self._known |= zip(missing, self._ask(tuple(missing)), strict=True)
        return [self._known[question] for question in questions]

    def _ask(self, questions: Sequence[Question]) -> list[Answer]:
        try:
            return self.promtool.evaluate(
                questions,
                series=self.scraped,
                interval=self.interval,
                rule_files=self.rule_files,
            )
        except ConfigurationError as error:
            self.failed = error
            raise
