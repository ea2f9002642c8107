"""`wait`: let time pass. It is a row with `due_at`: never early, whoever drives the run by then.

The surprise: the run holds the target's slot meanwhile, so that nobody else acts in between.
"""

from __future__ import annotations

from remediator.engine.moves import Done, Move, Progress, Wait
from remediator.model.duration import format_duration
from remediator.model.step import WaitStep


def next_move(progress: Progress) -> Move:
    """Return the next move of a wait step."""
    step = progress.step
    if not isinstance(step, WaitStep):
        msg = "not a wait step"
        raise TypeError(msg)
    over = progress.step_started_at + step.wait
    if progress.now < over:
        return Wait(until=over, why=f"waiting {format_duration(step.wait)}")
    return Done(None, f"waited {format_duration(step.wait)}")
