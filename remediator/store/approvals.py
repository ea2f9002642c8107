"""Questions to a person: asked once, decided once, open until they expire.

A run that asks waits as a row without its slot. The first decision wins: an update of a row that
is still open.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import Row, insert, select, update

from remediator.model.run import ApprovalRow, Decided, Run
from remediator.store.database import Tx, inserted_id
from remediator.store.tables import approvals, runs

_COLUMNS = [approvals.c[name] for name in ApprovalRow.__dataclass_fields__]


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


def ask(tx: Tx, run: Run, *, pc: int, message: str, within: timedelta) -> int:
    """Ask a person, unless this step of the run has asked already; return the question's id."""
    known = next((row for row in of_run(tx, run.id) if row.pc == pc), None)
    if known is not None:
        return known.id
    inserted = tx.conn.execute(
        insert(approvals).values(
            run_id=run.id,
            pc=pc,
            message=message,
            asked_at=tx.now,
            expires_at=tx.now + within,
        )
    )
    return inserted_id(inserted)


def decide(tx: Tx, approval_id: int, *, decision: Decided, by: str, reason: str) -> bool:
    """Decide an open question and make its run due; False when it is decided or expired already."""
    done = tx.conn.execute(
        update(approvals)
        .where(approvals.c.id == approval_id, approvals.c.decision.is_(None))
        .where(approvals.c.expires_at > tx.now)
        .values(decision=decision, decided_at=tx.now, by=by, reason=reason)
    )
    if done.rowcount != 1:
        return False
    asked = get(tx, approval_id)
    if asked is not None:
        tx.conn.execute(update(runs).where(runs.c.id == asked.run_id).values(due_at=tx.now))
    return True


def expire(tx: Tx, approval_id: int) -> None:
    """Note that nobody answered in time, unless somebody has."""
    tx.conn.execute(
        update(approvals)
        .where(approvals.c.id == approval_id, approvals.c.decision.is_(None))
        .where(approvals.c.expires_at <= tx.now)
        .values(decision=Decided.EXPIRED, decided_at=tx.now)
    )
