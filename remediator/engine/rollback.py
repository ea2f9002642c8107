"""The second phase of a run: take back what was done, in reverse order, each thing once.

Called by the runner while a run is rolling back. The surprise: a throttle that stepped three times
is taken back by one call, to the value before its first step; and a run that was merely
interrupted (paused, pre-empted) takes back only what is half-done: its settings are leases that
live on.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from remediator.engine.actions.knobs import OWNER
from remediator.engine.moves import SETTINGS, Progress, Result, Send
from remediator.engine.settle import TAKE_BACK, takes_all_back
from remediator.model.run import Phase, Run, StepRow
from remediator.store import changes, steps
from remediator.store.database import Tx


def to_take_back(progress: Progress) -> list[StepRow]:
    """Return one row per thing to take back, newest first: its earliest, for the value before."""
    chosen: dict[tuple[int, str], StepRow] = {}
    for row in progress.history.steps:
        undo = row.undo
        if row.phase is not Phase.FORWARD or undo is None or row.undone:
            continue
        if row.status not in TAKE_BACK:
            continue
        if undo.get("lasting", False) and not takes_all_back(progress):
            continue
        chosen.setdefault((row.pc, row.call), row)
    return list(reversed(chosen.values()))


def next_undo(progress: Progress) -> Send | list[str]:
    """Return the next call of the rollback, or what could not be taken back once all is tried."""
    failures = []
    for row in to_take_back(progress):
        call = f"undo:{row.call}"
        result = progress.result(
            call, row.iteration, phase=Phase.ROLLBACK, pc=row.pc, retries=ROLLBACK_RETRIES
        )
        if result is None:
            return _undo(row, call)
        if result is not Result.OK:
            attempts = progress.attempts(call, row.iteration, phase=Phase.ROLLBACK, pc=row.pc)
            failures.append(f"{row.call}: {attempts[-1].error}")
    return failures


# Putting things back matters more than giving up early.
ROLLBACK_RETRIES = 5


def _undo(row: StepRow, call: str) -> Send:
    undo: dict[str, Any] = row.undo or {}
    args = {"owner": OWNER, "reason": f"run R{row.run_id} takes {row.call} back", **undo["args"]}
    return Send(
        call=call,
        role=undo.get("role", SETTINGS),
        verb=undo["verb"],
        args=args,
        why=f"take {row.call} back",
        idempotent=undo.get("idempotent", undo["verb"] != "start"),
        pc=row.pc,
        iteration=row.iteration,
        phase=Phase.ROLLBACK,
        counts=False,
        retries=ROLLBACK_RETRIES,
        on_ok=partial(_taken_back, pc=row.pc, call=row.call, undo=undo),
    )


def _taken_back(tx: Tx, run: Run, *, pc: int, call: str, undo: dict[str, Any]) -> None:
    steps.mark_undone(tx, run, pc=pc, calls=(call,))
    args = undo["args"]
    if undo["verb"] == "release":
        changes.took_back(tx, run, knob=args["knob"], value=None)
    elif undo["verb"] == "set":
        for knob, value in args["values"].items():
            changes.took_back(tx, run, knob=knob, value=float(value))
