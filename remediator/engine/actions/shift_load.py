"""`shift_load`: give the target a smaller share of the traffic, as a lease; then verify.

The balancer is another program with the same small contract as a detector's settings (`knobs`).
The surprise: the percentage is of the weight it had before anybody touched it, so that a second
shift does not multiply with the first, and a share of zero alone takes the target out.
"""

from __future__ import annotations

import math

from remediator.engine.actions.knobs import set_once
from remediator.engine.moves import BALANCER, Failed, Measure, Move, Progress
from remediator.model.step import ShiftLoadStep
from remediator.model.verdict import Verdict

KNOB = "weight"
HEADROOM = "headroom"
# It comes back in so many steps: all at once would overload a target that is cold.
STEPS_BACK = 5


def next_move(progress: Progress) -> Move:
    """Return the next move of a shift_load step."""
    step = progress.step
    if not isinstance(step, ShiftLoadStep):
        msg = "not a shift_load step"
        raise TypeError(msg)
    share = step.shift_load.weight

    def plan(current: float, base: float) -> tuple[float, str] | Move:
        wanted = max(1, round(base * share / 100)) if share else 0
        if current <= wanted:
            return Failed(
                Verdict.UNCHANGED,
                f"its weight is {current:g} already, {share}% of {base:g}: nothing to shift",
            )
        no_room = _no_room(progress, step)
        why = f"{KNOB} {current:g} -> {wanted} ({share}% of {base:g})"
        return no_room or (wanted, why)

    return set_once(
        progress,
        role=BALANCER,
        knob=KNOB,
        lease=step.lease,
        plan=plan,
        back=lambda base: math.ceil(base / STEPS_BACK),
    )


def _no_room(progress: Progress, step: ShiftLoadStep) -> Move | None:
    """Ask just before the effect whether the others can carry it; no data refuses (rule R10)."""
    headroom = step.shift_load.headroom
    if headroom is None:
        return None
    taken = progress.history.readings(progress.run.pc, HEADROOM)
    if not taken or progress.now - taken[-1].at > progress.pace.evidence_max_age:
        return Measure(role=HEADROOM, query=headroom.query)
    told = f"measured {taken[-1].describe()}, wanted {headroom.comparison}"
    if taken[-1].value is None:
        return Failed(Verdict.UNKNOWN, f"nobody can say whether the others have room: {told}")
    if not headroom.holds(taken[-1].value):
        return Failed(None, f"the others have no room for it: {told}")
    return None
