"""What the guards count: runs opened, acting, ended, and alerts that fire.

Read by admission inside the transaction that would open the run. The surprise: on PostgreSQL two
admissions could count at the same moment and both find room, so they take turns (`one_by_one`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, exists, func, not_, or_, select

from remediator.model.playbook import Mode
from remediator.model.run import (
    OPEN_STATES,
    PROPOSAL,
    Decided,
    Phase,
    Run,
    RunKind,
    RunState,
    StepStatus,
)
from remediator.model.verdict import Verdict
from remediator.store.database import Tx
from remediator.store.runs import run_of
from remediator.store.tables import alerts, approvals, runs, steps

# Names the lock under which admissions take turns on PostgreSQL; any number will do.
LOCK = 0x41444D49
NOBODY = 0
# More failures in a row than this make no run wait longer (`guards.listed.rest`).
LONGEST_ROW = 20
_COLUMNS = [runs.c[name] for name in Run.__dataclass_fields__]
_OPEN = [state.value for state in OPEN_STATES]
_NO = (Decided.REJECTED.value, Decided.EXPIRED.value)


def one_by_one(tx: Tx) -> None:
    """Let no other admission decide before this transaction ends."""
    if tx.conn.dialect.name == "postgresql":
        tx.conn.execute(select(func.pg_advisory_xact_lock(LOCK)))


def _remedies(columns: Any, mode: Mode, but: int) -> Select[Any]:
    return select(*columns).where(
        runs.c.kind == RunKind.REMEDY, runs.c.mode.in_(mode.lane_modes), runs.c.id != but
    )


def _of_class(playbook: str, target: str, pool: str) -> ColumnElement[bool]:
    where = runs.c.pool == pool if pool else runs.c.target == target
    return and_(runs.c.playbook == playbook, where)


def last_verdict(tx: Tx, *, playbook: str, target: str, mode: Mode) -> Verdict | None:
    """Return what this playbook's last run on the target came to, or None."""
    row = tx.conn.execute(
        _remedies([runs.c.verdict], mode, NOBODY)
        .where(runs.c.playbook == playbook, runs.c.target == target)
        .where(runs.c.closed_at.is_not(None))
        .order_by(runs.c.closed_at.desc())
        .limit(1)
    ).first()
    return Verdict(row.verdict) if row is not None and row.verdict else None


def count_opened(
    tx: Tx,
    *,
    since: datetime,
    mode: Mode,
    playbook: str | None = None,
    target: str | None = None,
    pool: str | None = None,
    but: int = NOBODY,
) -> int:
    """Count the remedies opened since then, of one playbook, target or pool, or of all."""
    statement = _remedies([func.count()], mode, but).where(runs.c.opened_at > since)
    for column, wanted in ((runs.c.playbook, playbook), (runs.c.target, target)):
        if wanted is not None:
            statement = statement.where(column == wanted)
    if pool is not None:
        statement = statement.where(runs.c.pool == pool)
    return int(tx.conn.execute(statement).scalar_one())


def acting_targets(tx: Tx, mode: Mode, *, but: int = NOBODY) -> frozenset[str]:
    """Return the targets on which a run acts now."""
    rows = tx.conn.execute(
        select(runs.c.target)
        .where(runs.c.holds_slot, runs.c.mode.in_(mode.lane_modes), runs.c.id != but)
        .distinct()
    )
    return frozenset(rows.scalars())


def slot_run(
    tx: Tx, *, playbook: str, target: str, mode: Mode, slot: datetime, but: int = NOBODY
) -> int | None:
    """Return the run that a slot of a schedule had already, or None."""
    found: int | None = tx.conn.execute(
        _remedies([runs.c.id], mode, but)
        .where(runs.c.playbook == playbook, runs.c.target == target, runs.c.opened_at >= slot)
        .order_by(runs.c.id)
        .limit(1)
    ).scalar_one_or_none()
    return found


def asking(tx: Tx, *, playbook: str, target: str, but: int = NOBODY) -> int | None:
    """Return the open proposal of this playbook on the target, or None."""
    found: int | None = tx.conn.execute(
        _remedies([runs.c.id], Mode.PROPOSE, but)
        .where(runs.c.playbook == playbook, runs.c.target == target)
        .where(runs.c.mode == Mode.PROPOSE, runs.c.state.in_(_OPEN))
        .limit(1)
    ).scalar_one_or_none()
    return found


def is_worked_on(tx: Tx, alert_id: int) -> bool:
    """Say whether any run of an alert is open."""
    found = tx.conn.execute(
        select(runs.c.id).where(runs.c.alert_id == alert_id, runs.c.state.in_(_OPEN)).limit(1)
    ).first()
    return found is not None


@dataclass(frozen=True)
class Rejection:
    """A person's no to a proposal."""

    run_id: int
    by: str
    reason: str


def rejection(tx: Tx, *, playbook: str, target: str, alert_id: int) -> Rejection | None:
    """Return who said no to this playbook for this episode of the alert, or None."""
    columns = (runs.c.id, runs.c.plan, approvals.c.pc, approvals.c.by, approvals.c.reason)
    rows = tx.conn.execute(
        _answered(columns, Decided.REJECTED, playbook=playbook, target=target, alert_id=alert_id)
    )
    for row in rows:
        # A no that led on to another step, or to an escalation, was no refusal of the playbook.
        if row.pc == PROPOSAL or _stops(row.plan["steps"][row.pc]):
            return Rejection(run_id=row.id, by=row.by, reason=row.reason)
    return None


def _stops(step: Mapping[str, Any]) -> bool:
    return str(step.get("approve", {}).get("on_reject", "stop")) == "stop"


def _answered(
    columns: Any, decision: Decided, *, playbook: str, target: str, alert_id: int
) -> Select[Any]:
    return (
        select(*columns)
        .join(runs, runs.c.id == approvals.c.run_id)
        .where(approvals.c.decision == decision)
        .where(runs.c.playbook == playbook, runs.c.target == target, runs.c.alert_id == alert_id)
        .order_by(approvals.c.id.desc())
    )


@dataclass(frozen=True)
class Unanswered:
    """A proposal that nobody answered in time."""

    run_id: int
    expired_at: datetime


def unanswered(tx: Tx, *, playbook: str, target: str, alert_id: int) -> Unanswered | None:
    """Return the last proposal of this playbook for this episode that nobody answered, or None."""
    row = tx.conn.execute(
        _answered(
            (runs.c.id, approvals.c.expires_at),
            Decided.EXPIRED,
            playbook=playbook,
            target=target,
            alert_id=alert_id,
        ).where(approvals.c.pc == PROPOSAL)
    ).first()
    return None if row is None else Unanswered(run_id=row.id, expired_at=row.expires_at)


@dataclass(frozen=True)
class Unsettled:
    """A call that does more when it is sent again, and may have come through."""

    run_id: int
    call: str
    why: str
    error: str
    at: datetime


def unsettled(
    tx: Tx, *, playbook: str, target: str, alert_id: int, since: datetime | None
) -> Unsettled | None:
    """Return the last such call of this playbook for this episode of the alert, or None.

    Args:
        tx: the transaction.
        playbook: whose runs.
        target: on what.
        alert_id: the episode.
        since: when a person let it begin anew.
    """
    wanted = (
        select(steps.c.run_id, steps.c.call, steps.c.why, steps.c.error, steps.c.started_at)
        .join(runs, runs.c.id == steps.c.run_id)
        .where(runs.c.playbook == playbook, runs.c.target == target, runs.c.alert_id == alert_id)
        .where(steps.c.phase == Phase.FORWARD, steps.c.status == StepStatus.UNKNOWN)
        .where(~steps.c.idempotent, ~steps.c.undone)
        .order_by(steps.c.id.desc())
        .limit(1)
    )
    if since is not None:
        wanted = wanted.where(steps.c.started_at > since)
    row = tx.conn.execute(wanted).first()
    return None if row is None else Unsettled(*row)


@dataclass(frozen=True)
class Other:
    """How another playbook stands on a target.

    Attributes:
        open_run: its open run; a proposal that nobody has decided is none.
        ended_at: when its last run that acted ended.
    """

    open_run: int | None
    ended_at: datetime | None


def other(tx: Tx, *, playbook: str, target: str, mode: Mode, but: int = NOBODY) -> Other:
    """Say how another playbook stands on a target."""
    here = and_(runs.c.playbook == playbook, runs.c.target == target)
    open_run: int | None = tx.conn.execute(
        _remedies([runs.c.id], mode, but)
        .where(here, runs.c.state.in_(_OPEN), runs.c.mode != Mode.PROPOSE)
        .limit(1)
    ).scalar_one_or_none()
    ended_at: datetime | None = tx.conn.execute(
        _remedies([func.max(runs.c.closed_at)], mode, but).where(here, runs.c.acted_at.is_not(None))
    ).scalar_one()
    return Other(open_run=open_run, ended_at=ended_at)


def judged(
    tx: Tx, *, playbook: str, target: str, pool: str, since: datetime | None, limit: int
) -> list[Run]:
    """Return the newest closed remedies that acted and say something about the playbook.

    Of its class: the target's pool, or the target when it has none; oldest first. A run that was
    asked to stop says nothing, unless it ran out of actions; neither does one that proved nothing
    because its playbook verifies nothing. Whoever failed before it could act did not help, either,
    unless it was a person who did not want it to.
    """
    unproved = and_(runs.c.state == RunState.SUCCEEDED, runs.c.verdict == Verdict.UNKNOWN)
    unasked = not_(exists().where(approvals.c.run_id == runs.c.id, approvals.c.decision.in_(_NO)))
    gave_up = and_(runs.c.state == RunState.FAILED, runs.c.mode != Mode.PROPOSE, unasked)
    wanted = (
        _remedies(_COLUMNS, Mode.AUTO, NOBODY)
        .where(_of_class(playbook, target, pool), or_(runs.c.acted_at.is_not(None), gave_up))
        .where(runs.c.closed_at.is_not(None), runs.c.state != RunState.CANCELLED)
        .where(not_(or_(_stopped(), _passed_on(), unproved)))
        .order_by(runs.c.closed_at.desc(), runs.c.id.desc())
        .limit(limit)
    )
    if since is not None:
        wanted = wanted.where(runs.c.closed_at > since)
    return [run_of(row) for row in tx.conn.execute(wanted)][::-1]


def _stopped() -> ColumnElement[bool]:
    """Say whether somebody or something stopped the run, other than its running out of actions."""
    reason = runs.c.stop_reason
    return and_(reason.is_not(None), not_(reason.startswith("budget")))


def _passed_on() -> ColumnElement[bool]:
    """Say whether the run did nothing but choose who takes over."""
    successor = runs.alias()
    taken_over = exists().where(successor.c.parent_id == runs.c.id)
    return and_(runs.c.acted_at.is_(None), taken_over)


@dataclass(frozen=True)
class Row:
    """Runs in a row that failed, up to the last one."""

    length: int
    ended_at: datetime


def failed_row(
    tx: Tx, *, playbook: str, target: str, mode: Mode, since: datetime | None
) -> Row | None:
    """Return the row of failed runs of this playbook on the target; None when the last did not."""
    wanted = (
        _remedies([runs.c.state, runs.c.closed_at], mode, NOBODY)
        .where(runs.c.playbook == playbook, runs.c.target == target)
        .where(runs.c.closed_at.is_not(None), runs.c.state != RunState.CANCELLED)
        .where(not_(or_(_stopped(), _passed_on())))
        .order_by(runs.c.closed_at.desc(), runs.c.id.desc())
        .limit(LONGEST_ROW)
    )
    if since is not None:
        wanted = wanted.where(runs.c.closed_at > since)
    ended = tx.conn.execute(wanted).all()
    failed = list(takewhile(lambda run: run.state != RunState.SUCCEEDED, ended))
    return Row(len(failed), failed[0].closed_at) if failed else None


def trial(tx: Tx, *, playbook: str, target: str, pool: str, but: int = NOBODY) -> int | None:
    """Return the open run of a playbook in a class; a proposal nobody has decided is none."""
    found: int | None = tx.conn.execute(
        _remedies([runs.c.id], Mode.AUTO, but)
        .where(_of_class(playbook, target, pool))
        .where(runs.c.state.in_(_OPEN), runs.c.mode != Mode.PROPOSE)
        .order_by(runs.c.id)
        .limit(1)
    ).scalar_one_or_none()
    return found


@dataclass(frozen=True)
class Firing:
    """One firing alert, as far as a storm is concerned."""

    labels: dict[str, str]
    annotations: dict[str, str]
    source: str


def firing(tx: Tx) -> Iterator[Firing]:
    """Return every alert that fires."""
    rows = tx.conn.execute(
        select(alerts.c.labels, alerts.c.annotations, alerts.c.source).where(alerts.c.firing)
    )
    for row in rows:
        yield Firing(labels=row.labels, annotations=row.annotations, source=row.source)
