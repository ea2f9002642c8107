"""The second phase of a run: take back what was done, in reverse order, each thing once.

Called by the runner while a run is rolling back. The surprise: a throttle that stepped three times
is taken back by one call, to the value before its first step; and a run that was merely
interrupted (paused, pre-empted) takes back only what is half-done: its settings are leases that
live on.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from remediator.engine import held
from remediator.engine.actions.knobs import OWNER, settings_of, taken_by
from remediator.engine.moves import SETTINGS, Inspect, Progress, Record, Result, Send
from remediator.engine.settle import done_still, takes_all_back
from remediator.model.run import Phase, Run, StepRow
from remediator.store import changes, steps
from remediator.store.database import Tx


def to_take_back(progress: Progress) -> list[StepRow]:
    """Return one row per thing to take back, newest first: its earliest, for the value before."""
    chosen: dict[tuple[int, str], StepRow] = {}
    for row in done_still(progress):
        lasting = (row.undo or {}).get("lasting", False)
        if lasting and not takes_all_back(progress):
            continue
        chosen.setdefault((row.pc, row.call), row)
    return list(reversed(chosen.values()))


def next_undo(progress: Progress) -> Inspect | Record | Send | list[str]:
    """Return the next move of the rollback, or what could not be taken back once all is tried."""
    failures = []
    for row in to_take_back(progress):
        call = f"undo:{row.call}"
        result = progress.result(
            call, row.iteration, phase=Phase.ROLLBACK, pc=row.pc, retries=ROLLBACK_RETRIES
        )
        if result is None:
            return _look(progress, row) or _undo(progress, row, call)
        if result is not Result.OK:
            attempts = progress.attempts(call, row.iteration, phase=Phase.ROLLBACK, pc=row.pc)
            failures.append(f"{row.call}: {attempts[-1].error}")
    return failures


# Putting things back matters more than giving up early.
ROLLBACK_RETRIES = 5


def _look(progress: Progress, row: StepRow) -> Inspect | Record | None:
    """Look before a knob is moved back: a person may have taken it, or set it, since."""
    undo: dict[str, Any] = row.undo or {}
    if undo["verb"] not in {"set", "release"}:
        return None
    role = undo.get("role", SETTINGS)
    if role not in progress.view:
        return Inspect(role)
    document = settings_of(progress, role)
    for knob in undo["args"].get("values", {undo["args"].get("knob")}):
        why = taken_by(document, knob) or _overwritten(progress, row, knob, document)
        if why is not None:
            return Record(partial(_left_alone, row=row, knob=knob, why=f"{why}: left alone"))
    return None


def _overwritten(
    progress: Progress, row: StepRow, knob: str, document: Mapping[str, Any]
) -> str | None:
    if row.before.get("settings", {}).get("leasing", True):
        return None  # there a lease is ours, or it is not
    base = (row.undo or {})["args"]["values"][knob]
    now = document.get("values", {}).get(knob, base)
    sent = (step.args.get("values", {}) for step in progress.history.steps)
    if now in {base, *(values[knob] for values in sent if knob in values)}:
        return None
    return f"{knob} is {now:g}, which run R{row.run_id} did not set"


def _left_alone(tx: Tx, run: Run, *, row: StepRow, knob: str, why: str) -> None:
    steps.mark_undone(tx, run, pc=row.pc, calls=(row.call,))
    change = changes.open_change(tx, run.target, run.mode, knob)
    if change is not None:
        held.yield_to(tx, change, why)


def _undo(progress: Progress, row: StepRow, call: str) -> Send:
    undo: dict[str, Any] = row.undo or {}
    args = {"owner": OWNER, "reason": f"run R{row.run_id} takes {row.call} back", **undo["args"]}
    generation = settings_of(progress, undo.get("role", SETTINGS)).get("generation")
    if undo["verb"] == "set" and generation is not None:
        args["if_generation"] = generation
    return Send(
        call=call,
        role=undo.get("role", SETTINGS),
        verb=undo["verb"],
        args=args,
        why=f"take {row.call} back",
        # Also a start: what runs already is not started again. Once too often is better than never.
        idempotent=undo.get("idempotent", True),
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
