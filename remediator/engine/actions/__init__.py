"""The actions of the playbook language: pure planners, one file each.

`next_move` picks by the kind of step. To add an action: its model in `model.playbook`, its planner
here, one line in `PLANNERS`.
"""

from __future__ import annotations

from collections.abc import Callable

from remediator.engine.actions import notify, restart, restore, retune, throttle
from remediator.engine.moves import Done, Move, Progress
from remediator.model.playbook import kind_of
from remediator.model.run import RunKind


def _skip(_progress: Progress) -> Move:
    return Done(None, "reached only when a step before it failed")


PLANNERS: dict[str, Callable[[Progress], Move]] = {
    "throttle": throttle.next_move,
    "retune": retune.next_move,
    "restart": restart.next_move,
    "notify": notify.next_move,
    "escalate_to": _skip,
}


def next_move(progress: Progress) -> Move:
    """Return what the run should do next, decided from the journal alone."""
    if progress.run.kind is RunKind.RESTORE:
        return restore.next_move(progress)
    return PLANNERS[kind_of(progress.step)](progress)
