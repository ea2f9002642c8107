"""`retune`: set tunables to given values, as leases, one call a knob; then verify."""

from __future__ import annotations

from remediator.engine.actions.knobs import refuse, set_knob
from remediator.engine.moves import SETTINGS, Failed, Inspect, Move, Progress, Result
from remediator.engine.verify import before, prove
from remediator.model.step import RetuneStep


def next_move(progress: Progress) -> Move:
    """Return the next move of a retune step."""
    step = progress.step
    if not isinstance(step, RetuneStep):
        msg = "not a retune step"
        raise TypeError(msg)
    start = before(progress)
    if start is not None:
        return start
    for knob, value in step.retune.set.items():
        call = f"set:{knob}"
        result = progress.result(call)
        if result is Result.OK:
            continue
        if result is not None:
            return Failed(None, f"{knob} could not be set: {progress.why_failed(call)}")
        if SETTINGS not in progress.view:
            return Inspect(SETTINGS)
        return refuse(progress, knob) or set_knob(
            progress,
            call=call,
            iteration=0,
            knob=knob,
            value=value,
            lease=step.lease,
            why=f"{knob} -> {value:g}",
        )
    return prove(progress, done="set")
