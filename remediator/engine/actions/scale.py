"""`scale`: set how many replicas serve, as a lease; then verify.

The surprise: `add` is turned into an absolute number of the just-read document, and that number is
what every repeat of the call carries, so that an answer that got lost adds nothing twice.
"""

from __future__ import annotations

from remediator.engine.actions.knobs import set_once
from remediator.engine.moves import SCALER, Failed, Move, Progress
from remediator.model.step import Scale, ScaleStep
from remediator.model.verdict import Verdict

KNOB = "replicas"


def next_move(progress: Progress) -> Move:
    """Return the next move of a scale step."""
    step = progress.step
    if not isinstance(step, ScaleStep):
        msg = "not a scale step"
        raise TypeError(msg)
    scale = step.scale

    def plan(current: float, _base: float) -> tuple[float, str] | Move:
        wanted = _wanted(scale, int(current))
        if wanted == current:
            return Failed(
                Verdict.UNCHANGED,
                f"there are {current:g} replicas already; {scale.min} to {scale.max} are allowed",
            )
        return wanted, f"{KNOB} {current:g} -> {wanted} ({scale.min} to {scale.max})"

    return set_once(
        progress, role=SCALER, knob=KNOB, lease=step.lease, plan=plan, back=lambda _base: 1
    )


def _wanted(scale: Scale, current: int) -> int:
    if scale.to is not None:
        return scale.to
    wanted = min(scale.max, max(scale.min, current + (scale.add or 0)))
    # More were asked for, or fewer: a bound must not turn that round.
    return max(wanted, current) if (scale.add or 0) > 0 else min(wanted, current)
