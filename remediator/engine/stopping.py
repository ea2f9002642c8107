"""Stop: roll back now, for one run, for a scope, or for everything (the kill switch).

Bodies of transactions, called by the control API. The surprise: what is asked for here binds
nobody to wait. Open runs turn back at their next step boundary, and what closed runs left held is
given back by runs of its own; neither needs a healthy measurement, and no pause holds it up.
"""

from __future__ import annotations

from dataclasses import dataclass

from remediator.engine.settle import KILLED, STOPPED
from remediator.model.playbook import Mode
from remediator.model.run import HeldChange, Run
from remediator.store import changes, controls, runs
from remediator.store.controls import Control, Kind
from remediator.store.database import Tx


@dataclass(frozen=True)
class Stopped:
    """What was asked to go back.

    Attributes:
        runs: open remedies that turn back.
        changes: what was held, and is given back now.
    """

    runs: tuple[int, ...]
    changes: tuple[int, ...]


def stop_scope(tx: Tx, *, scope: str, name: str, by: str, reason: str) -> Stopped:
    """Roll back now what runs do, or have left, in a scope: all, playbook, target or pool."""
    # Else a run could hand over meanwhile to one that nobody here has seen.
    controls.exclude_intents(tx)
    found = [
        run
        for run in runs.open_remedies(tx)
        if controls.covers(scope, name, playbook=run.playbook, target=run.target, pool=run.pool)
    ]
    held = [
        change
        for change in changes.open_changes(tx)
        if controls.covers(
            scope, name, playbook=change.playbook, target=change.target, pool=_pool(tx, change)
        )
    ]
    return _stop(tx, found, held, f"{STOPPED} by {by}: {reason}")


def stop_run(tx: Tx, run: Run, *, by: str, reason: str) -> Stopped:
    """Roll back now what a remedy does, or has left."""
    held = [change for change in changes.open_changes(tx) if change.run_id == run.id]
    return _stop(tx, [run] if run.state.is_open else [], held, f"{STOPPED} by {by}: {reason}")


def pull(tx: Tx, *, by: str, reason: str) -> Control:
    """Pull the kill switch: nothing forward on any replica from this commit on.

    Pulled twice it is one switch, and the first reason stays.
    """
    return killed(tx) or controls.put(
        tx, Kind.KILL, scope="all", name="", reason=reason, by=by, until=None
    )


def kill(tx: Tx, *, by: str, reason: str) -> Stopped:
    """Pull the kill switch, and roll everything back now.

    Where several processes write at once, `pull` comes first in a transaction of its own: this one
    waits for runs that others have in hand, and they may wait for the switch.
    """
    pull(tx, by=by, reason=reason)
    why = f"{KILLED}: the kill switch was pulled by {by}: {reason}"
    return _stop(tx, runs.open_remedies(tx), changes.open_changes(tx), why)


def killed(tx: Tx) -> Control | None:
    """Return the kill switch while it is on, or None."""
    return next(iter(controls.in_force(tx, Kind.KILL)), None)


def _stop(tx: Tx, found: list[Run], held: list[HeldChange], reason: str) -> Stopped:
    for run in found:
        runs.ask_to_stop(tx, run.id, reason=reason, insists=True)
    acting = {run.id: run.opened_at for run in found}
    back = [
        change.id
        for change in held
        if change.mode is not Mode.OBSERVE
        # What an open run set first goes back with that run; what it only took over goes back to
        # where an earlier run had set it, and has some way to go from there.
        and (change.run_id not in acting or change.created_at < acting[change.run_id])
    ]
    for change_id in back:
        changes.give_back_now(tx, change_id, reason=reason)
    return Stopped(runs=tuple(acting), changes=tuple(back))


def _pool(tx: Tx, change: HeldChange) -> str:
    run = runs.get_run(tx, change.run_id)
    return "" if run is None else run.pool
