"""The intent journal: what was about to be sent, and what came of it.

`begin` is the one transaction that allows an effect (design, section 4): fence, stop, pause, blind,
budget, slot and lease are checked and the attempt is inserted as `started` in it. Only the process
that committed that row may send, and only once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, func, insert, select, update

from remediator.model.playbook import Mode
from remediator.model.run import History, Measured, Phase, Run, StepRow, StepStatus
from remediator.model.verdict import Reading, ReadingStatus
from remediator.store import approvals, controls, diagnoses, overrides, runs
from remediator.store.database import Tx, inserted_id
from remediator.store.tables import measurements, steps
from remediator.store.tables import runs as runs_table

_COLUMNS = [steps.c[name] for name in StepRow.__dataclass_fields__]


@dataclass(frozen=True)
class Intent:
    """What is about to be sent.

    Attributes:
        undo: verb and args that take it back; None when there is nothing to take back.
        why: the sentence that explains it, with the figures.
        counts: whether it is a forward action that pause and budget may hold back. An intent
            that completes or takes back something half-done does not count.
        knobs: what it would move; a pin on one of them holds it back, whatever `counts` says.
        idempotent: sent twice it does no more than sent once.
    """

    pc: int
    phase: Phase
    iteration: int
    call: str
    action: str
    actuator: str
    verb: str
    args: dict[str, Any]
    before: dict[str, Any]
    undo: dict[str, Any] | None
    why: str
    counts: bool
    knobs: tuple[str, ...] = ()
    idempotent: bool = True


@dataclass(frozen=True)
class Begun:
    """The intent is on record; it may be sent now, once."""

    step_id: int
    idempotency_key: str
    fencing_token: int


@dataclass(frozen=True)
class Barred:
    """The intent was refused, and nothing may be sent.

    Attributes:
        reason: `stop`, `killed`, `paused`, `blind`, `override`, `pinned`, `budget` or `slot`.
        detail: a sentence for a person.
    """

    reason: str
    detail: str


@dataclass(frozen=True)
class ActionBudget:
    """At most `actions` forward actions on one target in any window of length `per`."""

    actions: int
    per: timedelta


def step_of(row: Row[Any]) -> StepRow:
    """Turn a row into a step attempt."""
    values = dict(row._mapping)
    values["phase"] = Phase(values["phase"])
    values["status"] = StepStatus(values["status"])
    return StepRow(**values)


def begin(
    tx: Tx, run: Run, intent: Intent, *, lease: timedelta, budget: ActionBudget
) -> Begun | Barred:
    """Put an intent on record, or say why nothing may be sent.

    Raises:
        FencedError: the run is no longer ours.
    """
    controls.hold_still(tx)
    runs.fenced_update(tx, run, lease_until=tx.now + lease)
    current = runs.get_run(tx, run.id)
    barred = (
        _barred(tx, run, intent, current, budget) if intent.counts else _pinned(tx, run, intent)
    )
    if barred is not None:
        return barred
    if not run.holds_slot and not runs.take_slot(tx, run):
        return Barred(reason="slot", detail="another run acts on the target")
    attempt = (
        1
        + tx.conn.execute(
            select(func.count())
            .select_from(steps)
            .where(steps.c.run_id == run.id, steps.c.phase == intent.phase, steps.c.pc == intent.pc)
            .where(steps.c.iteration == intent.iteration, steps.c.call == intent.call)
        ).scalar_one()
    )
    # The time of opening tells the runs of two journals apart that have the same number.
    opened = int(run.opened_at.timestamp() * 1000)
    key = f"run-{run.id}-{opened:x}/{intent.phase}/{intent.pc}/{intent.iteration}/{intent.call}"
    inserted = tx.conn.execute(
        insert(steps).values(
            run_id=run.id,
            attempt=attempt,
            idempotency_key=key,
            fencing_token=run.fencing_token,
            epoch=run.epoch,
            status=StepStatus.STARTED,
            started_at=tx.now,
            phase=intent.phase,
            pc=intent.pc,
            iteration=intent.iteration,
            call=intent.call,
            action=intent.action,
            actuator=intent.actuator,
            verb=intent.verb,
            args=intent.args,
            before=intent.before,
            undo=intent.undo,
            idempotent=intent.idempotent,
            why=intent.why,
        )
    )
    if current is not None and current.acted_at is None:
        runs.fenced_update(tx, run, acted_at=tx.now)
    return Begun(
        step_id=inserted_id(inserted),
        idempotency_key=key,
        fencing_token=run.fencing_token,
    )


def _barred(
    tx: Tx, run: Run, intent: Intent, current: Run | None, budget: ActionBudget
) -> Barred | None:
    if current is not None and current.stop_reason is not None:
        return Barred(reason="stop", detail=current.stop_reason)
    held = _held_back(tx, run, intent)
    if held is not None:
        return held
    this = (run.id, intent.pc, intent.iteration)
    used = actions_since(tx, run.target, run.mode, per=budget.per, but=this)
    if used >= budget.actions:
        return Barred(
            reason="budget",
            detail=f"{used} actions on {run.target} in the last window; {budget.actions} allowed",
        )
    return None


def _held_back(tx: Tx, run: Run, intent: Intent) -> Barred | None:
    """Return which control of a person, or blindness, keeps this from being done."""
    place = {"playbook": run.playbook, "target": run.target, "pool": run.pool}
    blocked = controls.blocked(tx, **place, actions=(intent.action,))
    if blocked is not None:
        return Barred(reason=blocked.reason, detail=blocked.detail)
    override = overrides.hands_off(tx, **place)
    if override is not None:
        return Barred(reason="override", detail=f"{override.by} said hands off: {override.reason}")
    for cap in overrides.mode_caps(tx, **place):
        if run.mode.acts and not cap.mode.acts:
            what = f"{cap.scope} {cap.name} no more than {cap.mode}"
            return Barred(reason="override", detail=f"{cap.by} allows {what}: {cap.reason}")
    return _pinned(tx, run, intent)


def _pinned(tx: Tx, run: Run, intent: Intent) -> Barred | None:
    pinned = overrides.pins(tx, run.target)
    for knob in intent.knobs:
        if knob in pinned:
            pin = pinned[knob]
            return Barred(reason="pinned", detail=f"{knob} is pinned by {pin.by}: {pin.reason}")
    return None


def actions_since(
    tx: Tx, target: str, mode: Mode, *, per: timedelta, but: tuple[int, int, int] | None = None
) -> int:
    """Count the forward actions on a target in the past `per`.

    One action may take several calls and attempts: (run, step, iteration) counts once, and `but`
    not at all.
    """
    rows = tx.conn.execute(
        select(steps.c.run_id, steps.c.pc, steps.c.iteration)
        .join(runs_table, runs_table.c.id == steps.c.run_id)
        .where(runs_table.c.target == target, runs_table.c.mode.in_(mode.lane_modes))
        .where(runs_table.c.kind == "remedy", steps.c.phase == Phase.FORWARD)
        .where(steps.c.started_at > tx.now - per)
        .distinct()
    ).all()
    return sum(tuple(row) != but for row in rows)


def finish(
    tx: Tx,
    run: Run,
    step_id: int,
    *,
    status: StepStatus,
    result: dict[str, Any] | None,
    error: str = "",
) -> None:
    """Put the outcome of one attempt on record.

    Raises:
        FencedError: the run is no longer ours; the new owner already counts it as unknown.
    """
    runs.fenced_update(tx, run, epoch=run.epoch)
    tx.conn.execute(
        update(steps)
        .where(steps.c.id == step_id, steps.c.status == StepStatus.STARTED)
        .values(status=status, result=result, error=error, ended_at=tx.now)
    )


def reclassify(
    tx: Tx, run: Run, step_id: int, *, status: StepStatus, result: dict[str, Any], error: str
) -> None:
    """Replace `started` or `unknown` by what a look at the target proved.

    Raises:
        FencedError: the run is no longer ours.
    """
    runs.fenced_update(tx, run, epoch=run.epoch)
    tx.conn.execute(
        update(steps)
        .where(steps.c.id == step_id)
        .where(steps.c.status.in_([StepStatus.STARTED, StepStatus.UNKNOWN]))
        .values(status=status, result=result, error=error, ended_at=tx.now)
    )


def mark_undone(tx: Tx, run: Run, *, pc: int, calls: tuple[str, ...]) -> None:
    """Note that forward calls of a step were taken back, so that they are not taken back twice.

    Raises:
        FencedError: the run is no longer ours.
    """
    runs.fenced_update(tx, run, epoch=run.epoch)
    tx.conn.execute(
        update(steps)
        .where(steps.c.run_id == run.id, steps.c.phase == Phase.FORWARD, steps.c.pc == pc)
        .where(steps.c.call.in_(calls))
        .values(undone=True)
    )


def measure(tx: Tx, run: Run, *, role: str, readings: list[Reading]) -> None:
    """Keep what was measured, and why.

    Raises:
        FencedError: the run is no longer ours.
    """
    runs.fenced_update(tx, run, epoch=run.epoch)
    if readings:
        tx.conn.execute(
            insert(measurements),
            [
                {
                    "run_id": run.id,
                    "pc": run.pc,
                    "role": role,
                    "query": r.query,
                    "at": r.at,
                    "status": r.status,
                    "value": r.value,
                    "detail": r.detail,
                }
                for r in readings
            ],
        )


def history(tx: Tx, run_id: int) -> History:
    """Return all that is on record of a run."""
    rows = tx.conn.execute(select(*_COLUMNS).where(steps.c.run_id == run_id).order_by(steps.c.id))
    kept = tx.conn.execute(
        select(measurements)
        .where(measurements.c.run_id == run_id)
        .order_by(measurements.c.at, measurements.c.id)
    )
    return History(
        steps=tuple(step_of(row) for row in rows),
        measurements=tuple(
            Measured(
                pc=row.pc,
                role=row.role,
                reading=Reading(
                    query=row.query,
                    at=row.at,
                    status=ReadingStatus(row.status),
                    value=row.value,
                    detail=row.detail,
                ),
            )
            for row in kept
        ),
        approvals=tuple(approvals.of_run(tx, run_id)),
        diagnosed=diagnoses.looked(tx, run_id),
    )
