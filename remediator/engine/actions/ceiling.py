"""The ceiling that a throttle turns: what was measured of it, and the next value it is set to.

Called by `throttle` only. The surprise: the level before each step is read from the measurements on
record, so that a process that takes the run over judges the steps as the first one would have.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median

from remediator.engine.actions.knobs import overtaken, refuse, set_knob, settings_of, unsure
from remediator.engine.moves import SETTINGS, Inspect, Move, Progress, Send
from remediator.engine.verify import sampled, window_of
from remediator.model.run import HeldChange
from remediator.model.step import ThrottleStep
from remediator.model.throttle import before_step_back, halve, jitter, step_down
from remediator.model.verdict import ENOUGH_SAMPLES, Reading
from remediator.store.changes import UNDONE_WITHIN

SIGNAL, THROUGHPUT, HARD = "signal", "throughput", "hard"
CALL = "set"


def trusted(progress: Progress, step: ThrottleStep, role: str) -> tuple[Reading, ...]:
    """Return what was measured, with no data in the place of what rests on an old sample (R8)."""
    taken = progress.history.readings(progress.run.pc, role)
    return sampled(progress, taken) if step.throttle.sampled_at else taken


def levels(
    progress: Progress, step: ThrottleStep, newest: tuple[Reading, ...]
) -> tuple[float, ...]:
    """Return the signal before each step, and after the last one (`newest`)."""
    window, taken = window_of(step.throttle.window, progress.pace), trusted(progress, step, SIGNAL)
    found, since = [], None
    for row in progress.iterations(CALL):
        before = [r for r in taken if r.at <= row.started_at]
        found.append(_level([r for r in before if since is None or r.at - window >= since]))
        since = row.ended_at
    return tuple(level for level in (*found, _level(newest)) if level is not None)


def _level(readings: tuple[Reading, ...] | list[Reading]) -> float | None:
    usable = [r.value for r in readings if r.value is not None][-ENOUGH_SAMPLES:]
    return median(usable) if usable else None


def hold_down(progress: Progress) -> timedelta:
    """Return the least time between two steps of this run (R3), with its share of jitter (R10)."""
    return progress.pace.hold_down * (1 + jitter(progress.run.id, progress.target.name))


def slots_down(progress: Progress, step: ThrottleStep) -> float:
    """Return how far this run has lowered the ceiling, in slots."""
    rows, knob = progress.iterations(CALL), step.throttle.knob
    if not rows:
        return 0.0
    before = rows[0].before.get("settings", {}).get("values", {}).get(knob, 0.0)
    return float(before) - float(rows[-1].args["values"][knob])


def waited_in_vain(progress: Progress, step: ThrottleStep, patience: timedelta) -> bool:
    """Say whether a step of this run was taken already because time had run out."""
    least = patience + window_of(step.throttle.window, progress.pace)
    return any(
        later.started_at - (earlier.ended_at or earlier.started_at) >= least
        for earlier, later in pairwise(progress.iterations(CALL))
    )


def stepped_back_at(progress: Progress, step: ThrottleStep) -> datetime | None:
    """Return when a restore last raised this ceiling, unless somebody has lowered it since."""
    change = _change(progress, step)
    return change.stepped_back_at if change else None


def _change(progress: Progress, step: ThrottleStep) -> HeldChange | None:
    mine = [change for change in progress.held if change.knob == step.throttle.knob]
    return mine[-1] if mine else None


def limit(progress: Progress, step: ThrottleStep) -> int | Move:
    """Return the ceiling as it is, or the move that must come before (a look, a refusal)."""
    if SETTINGS not in progress.view:
        return Inspect(SETTINGS)
    refused = refuse(progress, step.throttle.knob)
    if refused is not None:
        return refused
    return int(settings_of(progress)["values"][step.throttle.knob])


def lower(progress: Progress, step: ThrottleStep, *, limit: int, measured: float) -> Send:
    """Return the step down that the measurement asks for (R2)."""
    throttle, change = step.throttle, _change(progress, step)
    first = not progress.iterations(CALL)
    stepped = change.stepped_back_at if change and first else None
    if change and stepped and progress.now - stepped <= UNDONE_WITHIN:
        # A restore step that was too much: a minute ago the value before it was healthy (R4).
        size = int((change.restore or {}).get("step") or 1)
        new = before_step_back(limit, step=size, floor=throttle.min)
    else:
        new = step_down(
            limit,
            measured=measured,
            objective=throttle.objective,
            floor=throttle.min,
            ceiling=throttle.max,
        )
    said = f"measured {measured:.3g}, objective {throttle.objective:g}"
    return _set(progress, step, new, f"{said}: {throttle.knob} {limit} -> {new}")


def halved(progress: Progress, step: ThrottleStep, *, limit: int, why: str) -> Send:
    """Return the step for a hard condition (R1)."""
    throttle = step.throttle
    new = halve(limit, floor=throttle.min, ceiling=throttle.max)
    return _set(progress, step, new, f"{why}: {throttle.knob} {limit} -> {new}")


def again(progress: Progress, step: ThrottleStep, iteration: int) -> Move:
    """Return the step that was about to be taken.

    What may have come through is sent as it was, for its key names this very value; what certainly
    did not raises nothing that somebody has lowered since.
    """
    found, knob = limit(progress, step), step.throttle.knob
    if not isinstance(found, int):
        return found
    pending = unsure(progress, CALL, iteration)
    if pending:
        sent = pending[0]
        value = int(sent.args["values"][knob])
        return overtaken(sent, knob, found) or _set(progress, step, value, sent.why)
    last = progress.attempts(CALL, iteration)[-1]
    return _set(progress, step, min(int(last.args["values"][knob]), found), last.why)


def _set(progress: Progress, step: ThrottleStep, value: int, why: str) -> Send:
    return set_knob(
        progress,
        call=CALL,
        iteration=len(progress.iterations(CALL)),
        knob=step.throttle.knob,
        value=value,
        lease=step.lease,
        why=why,
        back=1,
    )
