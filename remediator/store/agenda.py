"""When something is due next: what a clock that is moved by hand jumps to.

Called by the rehearsal and by tests. A served controller never asks: it looks every second.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import case, func, select

from remediator.store.database import Tx
from remediator.store.tables import Moment, alerts, approvals, changes, notifications, runs


def next_due(tx: Tx) -> datetime | None:
    """Return the earliest moment at which a row waits to be looked at; None when none does."""
    owned = func.coalesce(runs.c.lease_until, runs.c.due_at)
    run_due = case((owned > runs.c.due_at, owned), else_=runs.c.due_at)
    dues = (
        select(func.min(run_due, type_=Moment)).where(runs.c.closed_at.is_(None)),
        select(func.min(alerts.c.review_at)),
        select(func.min(approvals.c.expires_at)).where(approvals.c.decision.is_(None)),
        select(func.min(changes.c.renew_at)).where(
            changes.c.closed_at.is_(None), changes.c.renew_at > tx.now
        ),
        select(func.min(notifications.c.due_at)),
    )
    times = [tx.conn.execute(due).scalar_one_or_none() for due in dues]
    return min((at for at in times if at is not None), default=None)
