"""Compares what a test expects with what came of it.

Pure. Called by `remediator test`. Every difference is a line for a person: what was expected, and
what was seen in its place. Times agree when they are at most one interval apart, because that is
how exactly Prometheus knows anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pydantic import BaseModel

from remediator.model.effect import Message
from remediator.model.run import Run
from remediator.rehearsal.props import Sent
from remediator.rehearsal.script import (
    Expected,
    ExpectedAction,
    ExpectedDecision,
    ExpectedMessage,
    ExpectedRun,
    ExpectedTarget,
)
from remediator.rehearsal.story import Story, TargetEnd, would

Wanted = TypeVar("Wanted", bound=BaseModel)
Seen = TypeVar("Seen")


def differences(expected: Expected, story: Story, *, interval: timedelta) -> list[str]:
    """Return what is not as expected, as lines for a person; none when all is."""
    look = _Look(story, interval)
    told = [f"the test cannot be played as written: {mistake}" for mistake in story.mistakes]
    if expected.decisions is not None:
        told += look.decisions(expected.decisions)
    runs = [run for run, _ in story.runs]
    told += look.all_of("runs", expected.runs, runs, look.is_run, look.run)
    sent = [one for one in story.sent if not one.is_upkeep]
    told += look.all_of("actions", expected.actions, sent, look.is_action, look.action)
    told += look.all_of("would", expected.would, would(story), look.is_action, look.action)
    told += look.all_of("messages", expected.messages, story.told, look.is_message, look.message)
    for name, target in expected.targets.items():
        told += _target(name, target, story.targets[name])
    return told


class _Look:
    """One comparison: how each thing is recognised, and how it is told."""

    def __init__(self, story: Story, interval: timedelta) -> None:
        self.story = story
        self.interval = interval

    def all_of(
        self,
        what: str,
        wanted: Sequence[Wanted] | None,
        seen: Sequence[Seen],
        is_it: Callable[[Wanted, Seen], bool],
        tell: Callable[[Seen], str],
    ) -> Iterator[str]:
        """Compare a list that is expected as a whole, one by one."""
        if wanted is None:
            return
        pairs = list(zip(wanted, seen, strict=False))
        if len(wanted) == len(seen) and all(is_it(want, one) for want, one in pairs):
            return
        yield f"{what}: expected {len(wanted)}, seen {len(seen)}"
        for want, one in pairs:
            if is_it(want, one):
                yield f"    = {tell(one)}"
            else:
                yield f"    - expected {_said(want)}"
                yield f"    + seen     {tell(one)}"
        yield from (f"    - expected {_said(want)}" for want in wanted[len(pairs) :])
        yield from (f"    + seen     {tell(one)}" for one in seen[len(pairs) :])

    def decisions(self, wanted: Sequence[ExpectedDecision]) -> Iterator[str]:
        """Look for each decision behind the one before it."""
        rest = list(self.story.decisions)
        for want in wanted:
            place = next((i for i, row in enumerate(rest) if self.is_decision(want, row)), None)
            if place is None:
                yield f"decisions: expected {_said(want)}; seen from there on:"
                yield from (f"    + {self.decision(row)}" for row in rest)
                if not rest:
                    yield "    + nothing"
                return
            rest = rest[place + 1 :]

    def is_decision(self, want: ExpectedDecision, row: Mapping[str, Any]) -> bool:
        """Say whether a row of the journal is the decision."""
        return (
            want.decision.value == ("admitted" if row["admitted"] else row["reason"])
            and want.playbook in {"", row["playbook"]}
            and want.target in {None, row["target"]}
            and want.detail in row["detail"]
            and self.near(want.at, row["first_at"])
        )

    def decision(self, row: Mapping[str, Any]) -> str:
        """Tell a decision."""
        said = "admitted" if row["admitted"] else f"{row['reason']}: {row['detail']}"
        return f"{self.story.when(row['first_at'])} {row['playbook']} {row['target']} {said}"

    def is_run(self, want: ExpectedRun, run: Run) -> bool:
        """Say whether a run is the one."""
        verdict = run.verdict.value if run.verdict else "none"
        return (
            (want.playbook, want.kind) == (run.playbook, run.kind)
            and want.target in {None, run.target}
            and want.mode in {None, run.mode}
            and want.state in {None, run.state}
            and want.verdict in {None, verdict}
            and want.reason in run.reason
            and self.near(want.at, run.opened_at)
        )

    def run(self, run: Run) -> str:
        """Tell a run."""
        verdict = run.verdict or "none"
        return (
            f"{self.story.when(run.opened_at)} {run.kind} {run.playbook} on {run.target}: "
            f"{run.state}, verdict {verdict}: {run.reason}"
        )

    def is_action(self, want: ExpectedAction, sent: Sent) -> bool:
        """Say whether a call is the one."""
        return (
            want.call == sent.verb
            and want.target in {None, sent.target}
            and want.role in {None, sent.role}
            and want.outcome in {None, sent.outcome}
            and _holds(want.args, sent.args)
            and self.near(want.at, sent.at)
        )

    def action(self, sent: Sent) -> str:
        """Tell a call."""
        args = {k: v for k, v in sent.args.items() if k not in {"reason", "owner"}}
        return (
            f"{self.story.when(sent.at)} {sent.verb} on {sent.target} ({sent.role}) "
            f"{json.dumps(args, default=str)}: {sent.outcome}"
        )

    def is_message(self, want: ExpectedMessage, told: tuple[datetime, Message]) -> bool:
        """Say whether a message is the one."""
        at, message = told
        return (
            want.title in message.title
            and want.severity in {None, message.severity}
            and self.near(want.at, at)
        )

    def message(self, told: tuple[datetime, Message]) -> str:
        """Tell a message."""
        at, message = told
        return f"{self.story.when(at)} [{message.severity}] {message.title}"

    def near(self, wanted: timedelta | None, at: datetime) -> bool:
        """Say whether a moment is the wanted one, as exactly as Prometheus looks."""
        return wanted is None or abs(at - self.story.start - wanted) <= self.interval


def _said(want: BaseModel) -> str:
    """Tell an expectation as it was written."""
    said = want.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return ", ".join(f"{key}: {_word(value)}" for key, value in said.items())


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _holds(wanted: Any, seen: Any) -> bool:
    """Say whether everything wanted is there; a mapping may hold more."""
    if isinstance(wanted, dict) and isinstance(seen, Mapping):
        return all(key in seen and _holds(value, seen[key]) for key, value in wanted.items())
    return bool(wanted == seen)


def _target(name: str, wanted: ExpectedTarget, seen: TargetEnd) -> Iterator[str]:
    values: dict[str, Any] = dict(wanted.settings)
    values |= {"weight": wanted.weight, "replicas": wanted.replicas}
    for knob, value in values.items():
        if value is not None and seen.values.get(knob) != value:
            has = f"{seen.values[knob]:g}" if knob in seen.values else "none"
            yield f"{name} at the end: expected {knob} {value:g}, seen {has}"
    if wanted.process not in {None, seen.process}:
        yield f"{name} at the end: expected a process {wanted.process}, seen {seen.process}"
    if wanted.draining not in {None, seen.draining}:
        yield f"{name} at the end: expected draining {wanted.draining}, seen {seen.draining}"
