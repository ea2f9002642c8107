"""Restore: give back what a remedy changed, one step at a time, while it stays healthy.

A restore is a run of its own, so that it is journaled, fenced and recovered like any other. Between
two steps it holds no slot. The surprise: what it may do is the state of the change. `restoring`
ends at once, and leaves the value, when the alert fires again; `overdue` only needs healthy
measurements; `returning` (somebody stopped it) asks for nothing and gives all of it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from remediator.engine import held
from remediator.engine.actions.knobs import OWNER, number, revert_pace, settings_of, taken_by
from remediator.engine.moves import (
    Done,
    Failed,
    Inspect,
    Measure,
    Move,
    Progress,
    Record,
    Result,
    Send,
    Wait,
)
from remediator.engine.verify import (
    SAMPLED_AT,
    measure_beside,
    next_measurement,
    sampled,
    window_of,
)
from remediator.model.run import HeldChange, Run
from remediator.model.spec import Condition
from remediator.model.throttle import jitter, step_back
from remediator.model.verdict import ENOUGH_SAMPLES, Reading, Verdict, fresh, has_held
from remediator.store import changes, runs
from remediator.store.database import Tx

HEALTHY, HARD, DEMAND = "healthy", "hard", "demand"
# A call of its own: the key of a step that nobody can say of must not carry another value.
CALL, ALL_AT_ONCE = "give_back", "give_back_all"
# A restore that does not get through waits for its target; each try waits longer.
RETRIES = 5
UNDER_WAY = frozenset({changes.RESTORING, changes.OVERDUE, changes.RETURNING})


def next_move(progress: Progress) -> Move:
    """Return the next move of a restore run."""
    change = progress.change
    if change is None or change.closed_at is not None:
        if change is not None and change.value == change.base:
            return Done(Verdict.IMPROVED, f"the change is {change.state}")
        return Failed(None, f"the change is {change.state if change else 'gone'}")
    if change.state not in UNDER_WAY:
        return Failed(None, f"run R{change.run_id} took the change over")
    if change.state == changes.RESTORING and progress.alert_since is not None:
        return Failed(None, "the alert fires again: the value stays", roll_back=False)
    call = ALL_AT_ONCE if change.state == changes.RETURNING else CALL
    iteration = len(progress.iterations(call))
    if progress.result(call, iteration, retries=RETRIES) in {Result.FAILED, Result.UNKNOWN}:
        return Failed(None, f"could not give back: {progress.why_failed(call, iteration)}")
    if call == ALL_AT_ONCE:
        return _give_back(progress, change, iteration, call=call)
    return _when_healthy(progress, change, iteration)


def _when_healthy(progress: Progress, change: HeldChange, iteration: int) -> Move:
    spec = change.restore or {}
    if progress.attempts(CALL, iteration):
        return _give_back(progress, change, iteration)
    window = window_of(timedelta(seconds=spec["window_s"]), progress.pace)
    since = progress.last_ok() or progress.step_started_at
    beside = measure_beside(progress, HEALTHY, _beside(spec))
    if beside is not None:
        return beside
    readings = fresh(_trusted(progress, HEALTHY, spec), acted_at=since, window=window)
    obstacle = _too_early(progress, change, iteration) or _obstacle(
        progress, spec, readings, hold=_hold(progress, change, iteration, window)
    )
    if obstacle is None:
        return _give_back(progress, change, iteration)
    return _look_again(progress, change, obstacle, not_before=since + window)


def _look_again(progress: Progress, change: HeldChange, why: str, *, not_before: Any) -> Move:
    spec = change.restore or {}
    due: Measure | Wait = next_measurement(
        progress,
        role=HEALTHY,
        query=spec["healthy"]["query"],
        every=timedelta(seconds=spec["measure_s"]),
        not_before=not_before,
    )
    if isinstance(due, Measure):
        return due
    told = f"{change.knob} at {change.value:g} of {change.base:g}; {why}"
    return Wait(until=due.until, why=told, release_slot=True)


def _interval(progress: Progress, change: HeldChange) -> timedelta:
    quiet = progress.now - progress.step_started_at > changes.QUIET
    backed_off = None if quiet else change.restore_interval_s
    return timedelta(seconds=backed_off or (change.restore or {})["every_s"])


def _too_early(progress: Progress, change: HeldChange, iteration: int) -> str | None:
    since = progress.last_ok() or progress.step_started_at
    least = _interval(progress, change) * (1 + jitter(progress.run.id, change.target))
    if iteration == 0:
        # R5: whatever was moved last, the other way, was moved before this run began.
        least = max(least, progress.pace.hold_down)
    return None if progress.now >= since + least else "healthy so far, but too early"


def _hold(progress: Progress, change: HeldChange, iteration: int, window: timedelta) -> timedelta:
    if iteration == 0:
        return timedelta(seconds=(change.restore or {})["hold_s"])
    return _interval(progress, change) - window


def _obstacle(
    progress: Progress, spec: Mapping[str, Any], readings: tuple[Reading, ...], *, hold: timedelta
) -> str | None:
    """Return why nothing is given back now; None when it is healthy."""
    condition = Condition.model_validate(spec["healthy"])
    said = readings[-1].describe() if readings else "nothing yet"
    if (
        len(readings) < ENOUGH_SAMPLES
        or progress.now - readings[-1].at > progress.pace.evidence_max_age
        or not has_held(readings, condition, hold)
    ):
        return f"measured {said}, wanted {condition.comparison}"
    for role, wanted in ((HARD, False), (DEMAND, True)):
        if spec.get(role) is None:
            continue
        also = Condition.model_validate(spec[role])
        newest = _trusted(progress, role, spec)[-1:]
        value = newest[0].value if newest else None
        # R8: what cannot be measured loosens nothing.
        if value is None or also.holds(value) is not wanted:
            told = newest[0].describe() if newest else "nothing yet"
            return f"{role}: measured {told}, " + (
                f"wanted {also.comparison}" if wanted else f"must not be {also.comparison}"
            )
    return None


def _beside(spec: Mapping[str, Any]) -> dict[str, str]:
    queries = {role: spec[role]["query"] for role in (HARD, DEMAND) if spec.get(role)}
    return queries | ({SAMPLED_AT: spec[SAMPLED_AT]} if spec.get(SAMPLED_AT) else {})


def _trusted(progress: Progress, role: str, spec: Mapping[str, Any]) -> tuple[Reading, ...]:
    taken = progress.history.readings(progress.run.pc, role)
    return sampled(progress, taken) if spec.get(SAMPLED_AT) else taken


def _give_back(progress: Progress, change: HeldChange, iteration: int, *, call: str = CALL) -> Move:
    if change.actuator not in progress.view:
        return Inspect(change.actuator)
    value = _next_value(progress, change, iteration, call=call)
    taken = _taken(progress, change, value)
    if taken is not None:
        return Record(partial(_yield, change_id=change.id, why=taken))
    cause = "healthy" if call == CALL else "stopped"
    why = f"{cause}: {change.knob} {change.value:g} -> {value:g} (base {change.base:g})"
    args: dict[str, Any] = {"owner": OWNER, "reason": f"run R{progress.run.id}: {why}"}
    release = value == change.base and change.reverts_itself
    if release:
        args["knob"] = change.knob
    else:
        args |= {"values": {change.knob: number(value)}, "lease_s": change.lease_s}
        args |= revert_pace(change.restore) if change.reverts_itself else _unmoved(progress, change)
    interval = _interval(progress, change) if call == CALL else None
    return Send(
        call=call,
        role=change.actuator,
        verb="release" if release else "set",
        args=args,
        why=why,
        idempotent=True,
        pc=progress.run.pc,
        iteration=iteration,
        counts=False,
        retries=RETRIES,
        on_ok=partial(_stepped, change_id=change.id, value=value, interval=interval),
    )


def _unmoved(progress: Progress, change: HeldChange) -> dict[str, Any]:
    generation = settings_of(progress, change.actuator).get("generation")
    return {} if generation is None else {"if_generation": generation}


def _taken(progress: Progress, change: HeldChange, value: float) -> str | None:
    """Return who has the knob by now, if it is not ours any more; a target that is mute says no."""
    document, knob = settings_of(progress, change.actuator), change.knob
    taken = taken_by(document, knob)
    if taken is not None:
        return taken
    current = document.get("values", {}).get(knob, change.value)
    # What is under a lease is under ours. A step of an earlier restore that nobody could say of may
    # have come through.
    if knob in document.get("leases", {}) or current in {
        change.value,
        value,
        change.base,
        _stepped_up(change),
    }:
        return None
    return f"{knob} is {current:g}, and was left at {change.value:g}: somebody else sets it"


def _stepped_up(change: HeldChange) -> float:
    step = (change.restore or {}).get("step")
    return step_back(change.value, base=change.base, step=step) if step else change.base


def _next_value(progress: Progress, change: HeldChange, iteration: int, *, call: str) -> float:
    pending = progress.attempts(call, iteration)
    if pending:
        return float(pending[-1].args.get("values", {}).get(change.knob, change.base))
    values = settings_of(progress, change.actuator).get("values", {})
    back_already = not change.reverts_itself and values.get(change.knob) == change.base
    return change.base if call == ALL_AT_ONCE or back_already else _stepped_up(change)


def _yield(tx: Tx, run: Run, *, change_id: int, why: str) -> None:
    runs.fenced_update(tx, run, epoch=run.epoch)
    change = changes.get_change(tx, change_id)
    if change is not None and change.closed_at is None:
        held.yield_to(tx, change, why)


def _stepped(tx: Tx, run: Run, *, change_id: int, value: float, interval: timedelta | None) -> None:
    changes.step_back(tx, change_id, value=value, token=run.fencing_token, interval=interval)
