"""Verification: prove by PromQL, on measurements newer than the action, that it helped.

Called by every action that has a `verify`, and by throttle and restore for their own signals. The
surprise: a measurement counts only when its whole look-back window lies after the action; a p95
over `[1m]` taken ten seconds after a change still describes the world before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from remediator.engine.moves import Done, Failed, Measure, MeasureBaseline, Move, Progress, Wait
from remediator.model.pace import Pace
from remediator.model.spec import Verify
from remediator.model.verdict import Baseline, Reading, Verdict, fresh, judge, where_sampled

VERIFY = "verify"
BASELINE = "baseline"
SAMPLED_AT = "sampled_at"
# The baseline is this many measuring intervals long: enough for a median and its spread.
BASELINE_SAMPLES = 8


def window_of(window: timedelta | None, pace: Pace) -> timedelta:
    """Return how far a query looks back: at least one scrape, for the newest sample is that old."""
    return max(window or timedelta(), pace.scrape)


def take_baseline(progress: Progress, query: str, every: timedelta) -> Move | None:
    """Measure the time before the action, once per step; None when that is done."""
    if any(m.pc == progress.run.pc and m.role == BASELINE for m in progress.history.measurements):
        return None
    return MeasureBaseline(query=query, length=BASELINE_SAMPLES * every)


def baseline_of(progress: Progress) -> Baseline | None:
    """Return the step's baseline, if it could be measured."""
    readings = progress.history.readings(progress.run.pc, BASELINE)
    return Baseline.of([r.value for r in readings if r.value is not None])


def next_measurement(
    progress: Progress, *, role: str, query: str, every: timedelta, not_before: datetime
) -> Measure | Wait:
    """Measure when the next sample is due, else wait for it."""
    taken = progress.history.readings(progress.run.pc, role)
    due = max(not_before, taken[-1].at + every) if taken else not_before
    if progress.now >= due:
        return Measure(role=role, query=query)
    return Wait(until=due, why=f"next measurement ({role})")


def measure_beside(progress: Progress, role: str, others: Mapping[str, str]) -> Measure | None:
    """Return the next question that goes with the newest reading of `role` and was not asked yet.

    Args:
        progress: what is known.
        role: what is measured on its own beat.
        others: role: query of what must be known of the same moment.
    """
    taken = progress.history.readings(progress.run.pc, role)
    for other, query in others.items() if taken else ():
        beside = progress.history.readings(progress.run.pc, other)
        if not beside or beside[-1].at < taken[-1].at:
            return Measure(role=other, query=query)
    return None


def sampled(progress: Progress, readings: Sequence[Reading]) -> tuple[Reading, ...]:
    """Return the readings, with no data in the place of those that rest on an old sample (R8)."""
    beside = progress.history.readings(progress.run.pc, SAMPLED_AT)
    return where_sampled(readings, beside, scrape=progress.pace.scrape)


def verify(progress: Progress, spec: Verify, *, acted_at: datetime, acted: bool = True) -> Move:
    """Return the next move of a step whose effects are all confirmed.

    Args:
        progress: what is known.
        spec: the step's `verify`.
        acted_at: when its last effect was confirmed, or when it began when it needed none.
        acted: False when nothing had to be done, so that an improvement is not ours.
    """
    window = window_of(spec.window, progress.pace)
    # What it measures while it warms up says nothing about the action, neither way.
    settled = acted_at + spec.settle if acted else acted_at
    deadline = settled + window + spec.within
    readings = fresh(
        progress.history.readings(progress.run.pc, VERIFY), acted_at=settled, window=window
    )
    verdict = judge(
        readings,
        condition=spec,
        hold=spec.hold,
        baseline=baseline_of(progress),
        out_of_time=progress.now >= deadline,
    )
    if verdict is None:
        return next_measurement(
            progress,
            role=VERIFY,
            query=spec.query,
            every=spec.every,
            not_before=settled + window,
        )
    told = describe(readings, spec)
    if verdict is Verdict.IMPROVED:
        return Done(verdict if acted else Verdict.UNCHANGED, told)
    return Failed(verdict, told, roll_back=verdict is Verdict.WORSE)


def prove(progress: Progress, *, done: str) -> Move:
    """Return the next move of a step whose effects are all confirmed, by its own `verify`.

    Args:
        progress: what is known.
        done: what was done, for a step that nothing is measured of.
    """
    spec = progress.step.verify
    if spec is None:
        return Done(None, f"{done}; nothing to verify it by")
    return verify(progress, spec, acted_at=progress.last_ok() or progress.step_started_at)


def before(progress: Progress) -> Move | None:
    """Measure what a step starts from, for its `verify`; None when there is nothing to measure."""
    spec = progress.step.verify
    return None if spec is None else take_baseline(progress, spec.query, spec.every)


def describe(readings: tuple[Reading, ...], spec: Verify) -> str:
    """Say what was measured, as a person would."""
    last = readings[-1].describe() if readings else "nothing was measured"
    return f"measured {last}, wanted {spec.comparison}; {len(readings)} fresh measurements"
