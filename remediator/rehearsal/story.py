"""What came of a test: everything that can be expected, and the timeline a person reads.

Read from the journal by `stage` when a test is over; compared by `expectations`, shown by
`reports`. The surprise: calls are listed as they arrived at the targets, not as the journal has
them, because the two must not be allowed to agree on an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from remediator.model.duration import format_duration
from remediator.model.effect import Message
from remediator.model.playbook import Mode
from remediator.model.run import History, Measured, Phase, Run, StepRow
from remediator.rehearsal.props import Sent
from remediator.rehearsal.script import Outcome
from remediator.store import queries, steps
from remediator.store.database import Tx

# More runs or decisions than any test has.
MOST = 10_000


@dataclass(frozen=True)
class TargetEnd:
    """What a target was like at the end.

    Attributes:
        values: settings by tunable, and `weight` and `replicas` where it has them.
        process: running, stopped or hung; empty when nothing runs it.
    """

    values: Mapping[str, float]
    process: str
    draining: bool


@dataclass(frozen=True)
class Story:
    """What came of one test.

    Attributes:
        start: the moment from which all times are counted.
        decisions: rows of the journal, oldest first.
        runs: with all that the journal knows of them, oldest first.
        sent: calls that arrived at targets, oldest first.
        told: messages to people.
        noted: what happened from outside.
        mistakes: what the test says that cannot be, and errors of the engine itself.
    """

    start: datetime
    decisions: tuple[Mapping[str, Any], ...]
    runs: tuple[tuple[Run, History], ...]
    sent: tuple[Sent, ...]
    told: tuple[tuple[datetime, Message], ...]
    noted: tuple[tuple[datetime, str], ...]
    mistakes: tuple[str, ...]
    targets: Mapping[str, TargetEnd]

    def when(self, at: datetime) -> str:
        """Return a moment as people count in a test: from its start."""
        return format_duration(at - self.start)

    def timeline(self) -> list[str]:
        """Return everything that happened, one line each, in order."""
        lines = [
            *((at, 0, text) for at, text in self.noted),
            *self._decided(),
            *(line for run, history in self.runs for line in _run_lines(run, history)),
            *((at, 6, f"told [{m.severity}] {m.title}") for at, m in self.told),
        ]
        lines.sort(key=lambda line: line[:2])
        return [f"{self.when(at):>9}  {text}" for at, _, text in lines]

    def _decided(self) -> Iterator[tuple[datetime, int, str]]:
        for row in self.decisions:
            who = row["playbook"] or "nothing"
            if row["admitted"]:
                said = f"{who} admitted on {row['target']} as R{row['run_id']}"
            else:
                said = f"{who} denied: {row['reason']}: {row['detail']}"
            many = f" (x{row['count']})" if row["count"] > 1 else ""
            yield row["first_at"], 1, f"{said}{many}"


def _run_lines(run: Run, history: History) -> Iterator[tuple[datetime, int, str]]:
    label = f"R{run.id}"
    yield run.opened_at, 2, f"{label} opened: {run.kind} {run.playbook} on {run.target}, {run.mode}"
    for row in history.steps:
        yield row.started_at, 4, f"{label} {_step(row)}"
    for measured in _told_apart(history.measurements):
        said = measured.reading.describe()
        # A baseline is older than its run, and told when it was looked up.
        at = max(measured.reading.at, run.opened_at)
        yield at, 3, f"{label} measured ({measured.role}): {said}"
    for asked in history.approvals:
        yield asked.asked_at, 3, f"{label} asks: {asked.message}"
        if asked.decision is not None and asked.decided_at is not None:
            who = f" by {asked.by}" if asked.by else ""
            yield asked.decided_at, 3, f"{label} {asked.decision}{who}"
    if run.closed_at is not None:
        verdict = run.verdict or "no verdict"
        yield run.closed_at, 5, f"{label} {run.state}, {verdict}: {run.reason}"
    else:
        yield run.due_at, 5, f"{label} still {run.state}: {run.reason}"


def _step(row: StepRow) -> str:
    back = "<- " if row.phase is Phase.ROLLBACK else ""
    tries = f" (attempt {row.attempt})" if row.attempt > 1 else ""
    error = f": {row.error}" if row.error else ""
    return f"{back}{row.call}{tries}: {row.why} => {row.status}{error}"


def _told_apart(measurements: Sequence[Measured]) -> list[Measured]:
    """Leave out a reading that says what the one before it said."""
    kept: list[Measured] = []
    for measured in measurements:
        last = next((m for m in reversed(kept) if m.role == measured.role), None)
        if last is None or last.reading.describe() != measured.reading.describe():
            kept.append(measured)
    return kept


def would(story: Story) -> list[Sent]:
    """Return what runs in mode observe would have sent, oldest first."""
    return [
        Sent(
            at=row.started_at,
            target=run.target,
            role=row.actuator,
            verb=row.verb,
            args=row.args,
            key=row.idempotency_key,
            outcome=Outcome.OK,
            applied=False,
        )
        for run, history in story.runs
        if run.mode is Mode.OBSERVE
        for row in history.steps
    ]


def read_story(
    tx: Tx,
    *,
    start: datetime,
    sent: Sequence[Sent],
    told: Sequence[tuple[datetime, Message]],
    noted: Sequence[tuple[datetime, str]],
    mistakes: Sequence[str],
    targets: Mapping[str, TargetEnd],
) -> Story:
    """Read what the journal knows, beside what the stage has seen."""
    found = queries.list_runs(tx, limit=MOST)
    decided = queries.list_decisions(tx, limit=MOST)
    return Story(
        start=start,
        decisions=tuple(decided[::-1]),
        runs=tuple((run, steps.history(tx, run.id)) for run in found[::-1]),
        sent=tuple(sent),
        told=tuple(told),
        noted=tuple(noted),
        mistakes=tuple(mistakes),
        targets=targets,
    )
