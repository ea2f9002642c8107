"""`approve`: a person decides whether the run goes on; it waits as a row, without the slot."""

from __future__ import annotations

from remediator.engine import approval
from remediator.engine.moves import Done, Move, Progress
from remediator.model.playbook import Mode
from remediator.model.step import ApproveStep


def next_move(progress: Progress) -> Move:
    """Return the next move of an approve step."""
    step = progress.step
    if not isinstance(step, ApproveStep):
        msg = "not an approve step"
        raise TypeError(msg)
    if progress.run.mode is Mode.OBSERVE:
        return Done(None, "it only observes: nobody is asked")
    return approval.next_move(progress, progress.run.pc, step.approve)
