"""The actions of the playbook language: pure planners, one file each.

`next_move` picks by the kind of step. To add an action: its model in `model.playbook`, its planner
here, one line in `PLANNERS`. The surprise: a step's `if` is measured once, when the run
comes to the step; what was skipped stays skipped, also for a process that takes the run over.
"""

from __future__ import annotations

from collections.abc import Callable

from remediator.engine import approval
from remediator.engine.actions import (
    approve,
    check,
    clear_cache,
    command,
    diagnose,
    http,
    notify,
    restart,
    restore,
    retune,
    scale,
    shift_load,
    silence,
    throttle,
    wait,
)
from remediator.engine.moves import Done, Failed, Measure, Move, Progress
from remediator.model.run import RunKind
from remediator.model.step import kind_of
from remediator.model.verdict import Verdict


def _skip(_progress: Progress) -> Move:
    return Done(None, "reached only when a step before it failed")


# What a step's `if` measured.
IF = "if"

PLANNERS: dict[str, Callable[[Progress], Move]] = {
    "throttle": throttle.next_move,
    "retune": retune.next_move,
    "shift_load": shift_load.next_move,
    "scale": scale.next_move,
    "restart": restart.next_move,
    "clear_cache": clear_cache.next_move,
    "silence": silence.next_move,
    "http": http.next_move,
    "command": command.next_move,
    "check": check.next_move,
    "wait": wait.next_move,
    "approve": approve.next_move,
    "notify": notify.next_move,
    "diagnose": diagnose.next_move,
    "escalate_to": _skip,
}


def next_move(progress: Progress) -> Move:
    """Return what the run should do next, decided from the journal alone."""
    if progress.run.kind is RunKind.RESTORE:
        return restore.next_move(progress)
    if progress.unreadable:
        return Failed(None, progress.unreadable)
    asked = approval.proposal(progress)
    if asked is not None:
        return asked
    return _skipped(progress) or PLANNERS[kind_of(progress.step)](progress)


def _skipped(progress: Progress) -> Move | None:
    when = progress.step.when
    if when is None:
        return None
    taken = progress.history.readings(progress.run.pc, IF)
    if not taken:
        return Measure(role=IF, query=when.query)
    measured = taken[0]
    told = f"measured {measured.describe()}, wanted {when.comparison}"
    if measured.value is None:
        # No data is neither yes nor no: to act and to leave it out would both be a guess.
        return Failed(Verdict.UNKNOWN, f"nobody can say whether this step is needed: {told}")
    return None if when.holds(measured.value) else Done(None, f"skipped: {told}")
