"""Questions to a person: asked once, decided once, open until they expire.

A run that asks waits as a row without its slot. The first decision wins: an update of a row that
is still open. The surprise: a run that began as a proposal is `auto` from its approval on, written
in the transaction of the decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, insert, select, update

from remediator.model.playbook import Mode
from remediator.model.run import PROPOSAL, ApprovalRow, Decided, Run
from remediator.store import changes
from remediator.store.database import Tx, inserted_id
from remediator.store.tables import approvals, runs

_COLUMNS = [approvals.c[name] for name in ApprovalRow.__dataclass_fields__]
# How the stop reason of a run begins that a person said no to.
REJECTED = Decided.REJECTED.value


def _row_of(row: Row[Any]) -> ApprovalRow:
    values = dict(row._mapping)
    values["decision"] = Decided(values["decision"]) if values["decision"] else None
    return ApprovalRow(**values)


def of_run(tx: Tx, run_id: int) -> list[ApprovalRow]:
    """Return the questions of a run, oldest first."""
    rows = tx.conn.execute(
        select(*_COLUMNS).where(approvals.c.run_id == run_id).order_by(approvals.c.id)
    )
    return [_row_of(row) for row in rows]


def get(tx: Tx, approval_id: int) -> ApprovalRow | None:
    """Return one question, or None."""
    row = tx.conn.execute(select(*_COLUMNS).where(approvals.c.id == approval_id)).first()
    return None if row is None else _row_of(row)


def open_questions(tx: Tx) -> list[ApprovalRow]:
    """Return what people can decide now, oldest first."""
    rows = tx.conn.execute(
        select(*_COLUMNS)
        .join(runs, runs.c.id == approvals.c.run_id)
        .where(approvals.c.decision.is_(None), approvals.c.expires_at > tx.now)
        .where(runs.c.closed_at.is_(None), runs.c.stop_reason.is_(None))
        .order_by(approvals.c.id)
    )
    return [_row_of(row) for row in rows]


def ask(tx: Tx, run: Run, *, pc: int, message: str, within: timedelta) -> ApprovalRow:
    """Ask a person, unless this step of the run has asked already; return the question."""
    known = next((row for row in of_run(tx, run.id) if row.pc == pc), None)
    if known is not None:
        return known
    inserted = tx.conn.execute(
        insert(approvals).values(
            run_id=run.id,
            pc=pc,
            message=message,
            asked_at=tx.now,
            expires_at=tx.now + within,
        )
    )
    row = tx.conn.execute(select(*_COLUMNS).where(approvals.c.id == inserted_id(inserted))).one()
    return _row_of(row)


def decide(tx: Tx, approval_id: int, *, decision: Decided, by: str, reason: str) -> bool:
    """Decide an open question and make its run due; False when it is decided or expired already."""
    done = tx.conn.execute(
        update(approvals)
        .where(approvals.c.id == approval_id, approvals.c.decision.is_(None))
        .where(approvals.c.expires_at > tx.now)
        .values(decision=decision, decided_at=tx.now, by=by, reason=reason)
    )
    asked = get(tx, approval_id)
    if done.rowcount != 1 or asked is None:
        return False
    then: dict[str, Any] = {"due_at": tx.now}
    if decision is Decided.APPROVED and asked.pc == PROPOSAL:
        then["mode"] = Mode.AUTO
    tx.conn.execute(update(runs).where(runs.c.id == asked.run_id).values(**then))
    return True


def expire(tx: Tx, run_id: int) -> None:
    """Note about the questions of a run that nobody answered in time."""
    tx.conn.execute(
        update(approvals)
        .where(approvals.c.run_id == run_id, approvals.c.decision.is_(None))
        .where(approvals.c.expires_at <= tx.now)
        .values(decision=Decided.EXPIRED, decided_at=tx.now)
    )


def moot(tx: Tx) -> list[int]:
    """Return the waiting runs whose question nobody needs to answer: their alert is over."""
    rows = tx.conn.execute(
        select(runs.c.id, runs.c.alert_id)
        .join(approvals, approvals.c.run_id == runs.c.id)
        .where(approvals.c.decision.is_(None), runs.c.closed_at.is_(None))
        .where(runs.c.due_at > tx.now)
    )
    return [row.id for row in rows.all() if changes.alert_fires(tx, row.alert_id) is None]


def wake(tx: Tx, run_ids: Sequence[int]) -> None:
    """Make waiting runs due now."""
    tx.conn.execute(
        update(runs)
        .where(runs.c.id.in_(run_ids), runs.c.closed_at.is_(None), runs.c.due_at > tx.now)
        .values(due_at=tx.now)
    )
