"""`check`: go on only when a condition holds, or comes to hold in time; changes nothing.

The surprise: it gives up as soon as the condition can no longer hold for long enough, and a check
without data fails as `unknown`: "nobody can say" is not "no".
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from remediator.engine.moves import Done, Failed, Measure, Move, Progress, Wait
from remediator.model.step import Check, CheckStep
from remediator.model.verdict import Reading, Verdict

CHECK = "check"


def next_move(progress: Progress) -> Move:
    """Return the next move of a check step."""
    step = progress.step
    if not isinstance(step, CheckStep):
        msg = "not a check step"
        raise TypeError(msg)
    check, readings = step.check, progress.history.readings(progress.run.pc, CHECK)
    if not readings:
        return Measure(role=CHECK, query=check.query)
    last = readings[-1]
    told = f"measured {last.describe()}, wanted {check.comparison}"
    since = _good_since(readings, check)
    if since is not None and last.at - since >= check.hold:
        return Done(None, told)
    due = last.at + check.every
    earliest = (due if since is None else since) + check.hold
    if earliest > readings[0].at + max(check.within, check.hold):
        return Failed(Verdict.UNKNOWN if last.value is None else Verdict.UNCHANGED, told)
    if progress.now < due:
        return Wait(until=due, why=f"{told}; looking again")
    return Measure(role=CHECK, query=check.query)


def _good_since(readings: Sequence[Reading], check: Check) -> datetime | None:
    """Return since when every measurement met the condition; None when the last one did not."""
    since = None
    for reading in reversed(readings):
        if reading.value is None or not check.holds(reading.value):
            break
        since = reading.at
    return since
