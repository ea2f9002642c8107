"""Restore: give back what a remedy changed, one step at a time, while it stays healthy.

A restore is a run of its own, so that it is journaled, fenced and recovered like any other. Between
two steps it holds no slot. The surprise: it ends at once when the alert fires again or when a
remedy takes the change over, and leaves the value where it is.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from remediator.engine.actions.knobs import OWNER, revert_pace
from remediator.engine.moves import SETTINGS, Done, Failed, Move, Progress, Result, Send, Wait
from remediator.engine.verify import next_measurement, window_of
from remediator.model.run import HeldChange, Run
from remediator.model.spec import Condition
from remediator.model.throttle import step_back
from remediator.model.verdict import ENOUGH_SAMPLES, Verdict, fresh, has_held
from remediator.store import changes
from remediator.store.database import Tx

HEALTHY = "healthy"
CALL = "give_back"


def next_move(progress: Progress) -> Move:
    """Return the next move of a restore run."""
    change = progress.change
    if change is None or change.closed_at is not None:
        if change is not None and change.value == change.base:
            return Done(Verdict.IMPROVED, f"the change is {change.state}")
        return Failed(None, f"the change is {change.state if change else 'gone'}")
    if change.state != changes.RESTORING or change.restore is None:
        return Failed(None, f"run R{change.run_id} took the change over")
    if progress.alert_since is not None:
        return Failed(None, "the alert fires again: the value stays", roll_back=False)
    iteration = len(progress.iterations(CALL))
    if progress.result(CALL, iteration, retries=RETRIES) in {Result.FAILED, Result.UNKNOWN}:
        return Failed(None, f"could not give back: {progress.why_failed(CALL, iteration)}")
    return _step(progress, change, iteration)


# A restore that does not get through waits for its target; each try waits longer.
RETRIES = 5


def _step(progress: Progress, change: HeldChange, iteration: int) -> Move:
    spec = change.restore or {}
    interval = timedelta(seconds=change.restore_interval_s or spec["every_s"])
    window = window_of(timedelta(seconds=spec["window_s"]), progress.pace)
    since = progress.last_ok() or progress.step_started_at
    hold = timedelta(seconds=spec["hold_s"]) if iteration == 0 else interval - window
    readings = fresh(
        progress.history.readings(progress.run.pc, HEALTHY), acted_at=since, window=window
    )
    condition = Condition.model_validate(spec["healthy"])
    healthy = (
        len(readings) >= ENOUGH_SAMPLES
        and progress.now - readings[-1].at <= progress.pace.evidence_max_age
        and has_held(readings, condition, hold)
    )
    if (healthy and progress.now >= since + interval) or progress.attempts(CALL, iteration):
        return _give_back(progress, change, iteration, interval, spec["step"])
    due = next_measurement(
        progress,
        role=HEALTHY,
        query=condition.query,
        every=timedelta(seconds=spec["measure_s"]),
        not_before=since + window,
    )
    if isinstance(due, Wait):
        said = readings[-1].describe() if readings else "not measured yet"
        return Wait(
            until=due.until,
            why=f"{change.knob} at {change.value:g} of {change.base:g}; measured {said}, "
            f"wanted {condition.comparison}",
            release_slot=True,
        )
    return due


def _give_back(
    progress: Progress, change: HeldChange, iteration: int, interval: timedelta, step: int | None
) -> Send:
    base = change.base
    value = base if step is None else step_back(change.value, base=base, step=step)
    last = value == change.base
    why = f"healthy: {change.knob} {change.value:g} -> {value:g} (base {change.base:g})"
    common = {"owner": OWNER, "reason": f"run R{progress.run.id}: {why}"}
    number: float | int = int(value) if value.is_integer() else value
    return Send(
        call=CALL,
        role=SETTINGS,
        verb="release" if last else "set",
        args={"knob": change.knob, **common}
        if last
        else {
            "values": {change.knob: number},
            "lease_s": change.lease_s,
            **revert_pace(change.restore),
            **common,
        },
        why=why,
        idempotent=True,
        pc=progress.run.pc,
        iteration=iteration,
        counts=False,
        retries=RETRIES,
        on_ok=partial(_stepped, change_id=change.id, value=value, interval=interval),
    )


def _stepped(tx: Tx, run: Run, *, change_id: int, value: float, interval: timedelta) -> None:
    changes.step_back(tx, change_id, value=value, token=run.fencing_token, interval=interval)
