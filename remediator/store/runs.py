"""Runs: opening, claiming, fencing, parking and closing them.

Every write about a run goes through `_fenced`: owner, epoch and an open state must match, or
`FencedError` says that somebody else owns it now. The surprise: taking the target's slot is an
insert or update against a unique index, never a check before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, case, func, insert, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from remediator.errors import FencedError, OvertakenError
from remediator.model.playbook import Mode
from remediator.model.run import (
    OPEN_STATES,
    TRANSITIONS,
    Phase,
    Run,
    RunKind,
    RunState,
    StepStatus,
)
from remediator.model.verdict import Verdict
from remediator.store.database import Tx, inserted_id
from remediator.store.tables import fences, playbooks, runs, steps

_COLUMNS = [runs.c[name] for name in Run.__dataclass_fields__]
_OPEN = [state.value for state in OPEN_STATES]


def run_of(row: Row[Any]) -> Run:
    """Turn a row into a run."""
    values = dict(row._mapping)
    values["kind"] = RunKind(values["kind"])
    values["mode"] = Mode(values["mode"])
    values["state"] = RunState(values["state"])
    values["phase"] = Phase(values["phase"])
    values["verdict"] = Verdict(values["verdict"]) if values["verdict"] else None
    return Run(**values)


@dataclass(frozen=True)
class NewRun:
    """What a run starts with."""

    kind: RunKind
    playbook: str
    playbook_sha: str
    plan: dict[str, Any]
    mode: Mode
    priority: int
    target: str
    alert_id: int | None
    holds_slot: bool
    pool: str = ""
    proposed: bool = False
    parent_id: int | None = None
    change_id: int | None = None
    due_at: datetime | None = None


def keep_playbook(tx: Tx, *, sha256: str, name: str, text: str) -> None:
    """Keep the exact text of a playbook, so that a run can be read back years later."""
    known = tx.conn.execute(select(playbooks.c.name).where(playbooks.c.sha256 == sha256)).first()
    if known is None:
        tx.conn.execute(
            insert(playbooks).values(sha256=sha256, name=name, text=text, first_seen_at=tx.now)
        )


def open_run(tx: Tx, new: NewRun) -> int | None:
    """Open a run; None when another run holds the target's slot."""
    values = {
        **{name: getattr(new, name) for name in NewRun.__dataclass_fields__},
        "due_at": new.due_at or tx.now,
        "state": RunState.WAITING if new.kind is RunKind.RESTORE else RunState.ACTING,
        "phase": Phase.FORWARD,
        "opened_at": tx.now,
        "step_started_at": tx.now,
    }
    try:
        with tx.conn.begin_nested():
            inserted = tx.conn.execute(insert(runs).values(**values))
    except IntegrityError:
        return None
    return inserted_id(inserted)


def claim_due(tx: Tx, *, owner: str, lease: timedelta, limit: int) -> list[Run]:
    """Claim runs that are due and that nobody holds; raise their epoch and fencing token."""
    wanted = (
        select(runs.c.id, runs.c.target)
        .where(
            runs.c.state.in_(_OPEN),
            runs.c.due_at <= tx.now,
            or_(runs.c.lease_until.is_(None), runs.c.lease_until < tx.now),
        )
        .order_by(runs.c.priority.desc(), runs.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    claimed = []
    for row in tx.conn.execute(wanted).all():
        tx.conn.execute(
            update(runs)
            .where(runs.c.id == row.id)
            .values(
                owner=owner,
                epoch=runs.c.epoch + 1,
                lease_until=tx.now + lease,
                fencing_token=next_token(tx, row.target),
                state=case(
                    (runs.c.state == RunState.WAITING, RunState.ACTING.value), else_=runs.c.state
                ),
            )
        )
        run = get_run(tx, row.id)
        if run is not None:
            claimed.append(run)
    return claimed


def next_token(tx: Tx, target: str) -> int:
    """Raise the target's fencing token and return it.

    Never below the milliseconds since the epoch: a journal that was lost, or restored from a
    backup, must not count from where the target has long been.
    """
    least = int(tx.now.timestamp() * 1000)
    raised = case((fences.c.token >= least, fences.c.token + 1), else_=least)
    # PostgreSQL and SQLite share this upsert; SQLAlchemy spells it once per dialect.
    dialect = postgresql if tx.conn.dialect.name == "postgresql" else sqlite
    statement = (
        dialect.insert(fences)
        .values(target=target, token=least)
        .on_conflict_do_update(index_elements=["target"], set_={"token": raised})
        .returning(fences.c.token)
    )
    return int(tx.conn.execute(statement).scalar_one())


def newest_token(tx: Tx, target: str) -> int:
    """Return the target's fencing token as it is; 0 when no run was ever claimed on it."""
    token = tx.conn.execute(
        select(fences.c.token).where(fences.c.target == target)
    ).scalar_one_or_none()
    return 0 if token is None else int(token)


def renew(tx: Tx, held: Iterable[tuple[int, int]], *, owner: str, lease: timedelta) -> None:
    """Push back the lease of the runs this process drives; `held` are (id, epoch) pairs.

    Never forward: an intent may have taken a longer one, to cover a call that takes its time.
    """
    until = tx.now + lease
    for run_id, epoch in held:
        tx.conn.execute(
            update(runs)
            .where(runs.c.id == run_id, runs.c.owner == owner, runs.c.epoch == epoch)
            .where(runs.c.state.in_(_OPEN), runs.c.lease_until < until)
            .values(lease_until=until)
        )


def fenced_update(tx: Tx, run: Run, **values: Any) -> None:
    """Change a run that we still own.

    Raises:
        FencedError: somebody else owns it now, or it is closed.
    """
    if run.owner is None or not run.state.is_open:
        # Read, but never claimed, or let go since: what nobody owns, nobody may change.
        msg = f"run R{run.id} is {run.state} and owned by {run.owner or 'nobody'}"
        raise FencedError(msg)
    if "state" in values and values["state"] not in TRANSITIONS[run.state]:
        msg = f"run R{run.id} cannot go from {run.state} to {values['state']}"
        raise FencedError(msg)
    done = tx.conn.execute(
        update(runs)
        .where(runs.c.id == run.id, runs.c.owner == run.owner, runs.c.epoch == run.epoch)
        .where(runs.c.state == run.state)
        .values(**values)
    )
    if done.rowcount != 1:
        msg = f"run R{run.id} is no longer ours (epoch {run.epoch})"
        raise FencedError(msg)


def park(tx: Tx, run: Run, *, due_at: datetime, reason: str, release_slot: bool = False) -> None:
    """Let the run wait as a row: no owner, no task, no memory."""
    state = RunState.ROLLING_BACK if run.phase is Phase.ROLLBACK else RunState.WAITING
    values: dict[str, Any] = {"holds_slot": False} if release_slot else {}
    due: Any = due_at
    if run.stop_reason is None:
        # Asked to stop since the run was read: that must not wait until `due_at`.
        now, then = (literal(at, runs.c.due_at.type) for at in (tx.now, due_at))
        due = case((runs.c.stop_reason.is_not(None), now), else_=then)
    fenced_update(
        tx, run, state=state, due_at=due, owner=None, lease_until=None, reason=reason, **values
    )


def advance(tx: Tx, run: Run, *, pc: int, verdict: Verdict | None) -> None:
    """Go on to step `pc`."""
    fenced_update(
        tx,
        run,
        pc=pc,
        state=RunState.ACTING,
        step_started_at=tx.now,
        verdict=verdict or run.verdict,
    )


def turn_back(tx: Tx, run: Run, *, verdict: Verdict | None, reason: str) -> None:
    """Begin the second phase: take back what was done, in reverse order.

    Errors of ours on the way back are counted from nought: those of the way forward say nothing.
    """
    fenced_update(
        tx,
        run,
        drops=0,
        phase=Phase.ROLLBACK,
        state=RunState.ROLLING_BACK,
        verdict=verdict or run.verdict,
        reason=reason,
    )


def close(tx: Tx, run: Run, *, state: RunState, verdict: Verdict | None, reason: str) -> None:
    """Close the run for good and give its slot back.

    Raises:
        FencedError: the run is no longer ours.
        OvertakenError: it was asked to stop since it was read; what is closed takes nothing back.
    """
    fenced_update(
        tx,
        run,
        state=state,
        verdict=verdict or run.verdict,
        reason=reason,
        holds_slot=False,
        owner=None,
        lease_until=None,
        closed_at=tx.now,
    )
    # The row is locked from the update on: who asks later finds it closed.
    asked = tx.conn.execute(select(runs.c.stop_reason).where(runs.c.id == run.id)).scalar_one()
    if asked != run.stop_reason:
        msg = f"run R{run.id} was asked to stop since it was read: {asked}"
        raise OvertakenError(msg)
    _leave_no_attempt_open(tx, [run.id])


def _leave_no_attempt_open(tx: Tx, closed: list[int]) -> None:
    # A run can end before anybody settled the attempt of a process that died.
    tx.conn.execute(
        update(steps)
        .where(steps.c.run_id.in_(closed), steps.c.status == StepStatus.STARTED)
        .values(
            status=StepStatus.UNKNOWN,
            error="the process that sent it is gone, and the run ended before anybody asked",
            ended_at=tx.now,
        )
    )


def take_slot(tx: Tx, run: Run) -> bool:
    """Take the target's slot for a run that waited without it; False when it is taken."""
    try:
        with tx.conn.begin_nested():
            fenced_update(tx, run, holds_slot=True)
    except IntegrityError:
        return False
    return True


def ask_to_stop(tx: Tx, run_id: int, *, reason: str, insists: bool = False) -> bool:
    """Ask an open run to stop at its next step boundary; False when nothing was asked.

    Args:
        tx: the transaction.
        run_id: the run.
        reason: who asks, and why.
        insists: replace what was asked before. A person's cancel takes everything back, where a
            pause or a pre-emption that came first would leave what is held; and whoever takes
            everything back by itself is not kept from it by less.
    """
    asked = update(runs).where(runs.c.id == run_id, runs.c.state.in_(_OPEN))
    if not insists:
        asked = asked.where(runs.c.stop_reason.is_(None), runs.c.phase == Phase.FORWARD)
    return tx.conn.execute(asked.values(stop_reason=reason, due_at=tx.now)).rowcount == 1


def get_run(tx: Tx, run_id: int) -> Run | None:
    """Return one run, or None."""
    row = tx.conn.execute(select(*_COLUMNS).where(runs.c.id == run_id)).first()
    return None if row is None else run_of(row)


def open_remedies(tx: Tx) -> list[Run]:
    """Return the remedies that are not over, oldest first."""
    rows = tx.conn.execute(
        select(*_COLUMNS)
        .where(runs.c.kind == RunKind.REMEDY, runs.c.state.in_(_OPEN))
        .order_by(runs.c.id)
    )
    return [run_of(row) for row in rows]


def acting_run(tx: Tx, target: str, mode: Mode) -> Run | None:
    """Return the run that holds the target's slot in the lane of `mode`, or None."""
    row = tx.conn.execute(
        select(*_COLUMNS)
        .where(runs.c.target == target, runs.c.mode.in_(mode.lane_modes), runs.c.holds_slot)
        .limit(1)
    ).first()
    return None if row is None else run_of(row)


def open_remedy(tx: Tx, alert_id: int, mode: Mode) -> Run | None:
    """Return the open run in the lane of `mode` that the alert caused, or None."""
    row = tx.conn.execute(
        select(*_COLUMNS)
        .where(runs.c.alert_id == alert_id, runs.c.kind == RunKind.REMEDY)
        .where(runs.c.mode.in_(mode.lane_modes), runs.c.state.in_(_OPEN))
        .limit(1)
    ).first()
    return None if row is None else run_of(row)


def last_closed(tx: Tx, playbook: str, target: str, mode: Mode) -> datetime | None:
    """Return when this playbook's last run on the target ended, or None."""
    value: datetime | None = tx.conn.execute(
        select(func.max(runs.c.closed_at)).where(
            runs.c.playbook == playbook,
            runs.c.target == target,
            runs.c.mode.in_(mode.lane_modes),
            runs.c.kind == RunKind.REMEDY,
        )
    ).scalar_one()
    return value


def open_restore(tx: Tx, change_id: int) -> int | None:
    """Return the open restore run of this change, or None."""
    found: int | None = tx.conn.execute(
        select(runs.c.id)
        .where(runs.c.change_id == change_id, runs.c.state.in_(_OPEN))
        .where(runs.c.kind == RunKind.RESTORE)
    ).scalar()
    return found


def hasten_restore(tx: Tx, change_id: int) -> None:
    """Let the open restore run of this change go on at once, also when it was asked to stop."""
    tx.conn.execute(
        update(runs)
        .where(runs.c.change_id == change_id, runs.c.state.in_(_OPEN))
        .where(runs.c.kind == RunKind.RESTORE)
        .values(due_at=tx.now, stop_reason=None)
    )


def stop_restores(tx: Tx, change_id: int, *, reason: str) -> None:
    """Close the restore runs of a change that a remedy has just taken over."""
    closed = tx.conn.execute(
        update(runs)
        .where(runs.c.change_id == change_id, runs.c.state == RunState.WAITING)
        .where(runs.c.kind == RunKind.RESTORE)
        .values(
            state=RunState.CANCELLED,
            reason=reason,
            closed_at=tx.now,
            holds_slot=False,
            owner=None,
            lease_until=None,
        )
        .returning(runs.c.id)
    )
    _leave_no_attempt_open(tx, [row.id for row in closed.all()])


def count_drop(tx: Tx, run: Run) -> int:
    """Note that driving the run ended in an error of ours; return how often it has.

    Raises:
        FencedError: the run is no longer ours.
    """
    fenced_update(tx, run, drops=runs.c.drops + 1)
    return int(tx.conn.execute(select(runs.c.drops).where(runs.c.id == run.id)).scalar_one())


def let_go(tx: Tx, *, owner: str) -> int:
    """Give up every run of a process that shuts down, so that another goes on at once."""
    return tx.conn.execute(
        update(runs)
        .where(runs.c.owner == owner, runs.c.state.in_(_OPEN))
        .values(owner=None, lease_until=None)
    ).rowcount
