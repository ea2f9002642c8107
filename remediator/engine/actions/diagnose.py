"""`diagnose`: look at the target, ask the step's queries, keep what was seen; changes nothing."""

from __future__ import annotations

from datetime import timedelta

from remediator.engine.moves import Diagnose, Done, Move, Progress
from remediator.model.step import DiagnoseStep

# What has not answered by then is left out: a person reads this while something is broken.
LONGEST = timedelta(seconds=5)


def next_move(progress: Progress) -> Move:
    """Return the next move of a diagnose step."""
    step = progress.step
    if not isinstance(step, DiagnoseStep):
        msg = "not a diagnose step"
        raise TypeError(msg)
    if progress.run.pc in progress.history.diagnosed:
        return Done(None, f"looked; remediator explain R{progress.run.id} shows it")
    return Diagnose(
        pc=progress.run.pc,
        queries=step.diagnose.queries,
        log_lines=step.diagnose.log_lines,
        within=min(step.timeout, LONGEST),
    )
