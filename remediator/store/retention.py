"""Everything that grows has an end: closed stories older than the retention are deleted."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import and_, delete, exists, or_, select

from remediator.store.controls import Kind
from remediator.store.database import Tx
from remediator.store.tables import (
    alerts,
    changes,
    controls,
    decisions,
    deliveries,
    notifications,
    playbooks,
    runs,
)


def forget(tx: Tx, *, older_than: timedelta, limit: int = 1000) -> int:
    """Delete at most `limit` rows a table of what ended before the retention; return how many.

    Open runs, held changes, firing alerts and unsent messages are never deleted, nor is what tells
    their story: the run that a held change is given back from, the decisions about an alert that
    still fires, the text of a playbook that a run pinned.
    """
    before = tx.now - older_than
    held = exists().where(changes.c.run_id == runs.c.id, changes.c.closed_at.is_(None))
    fires = exists().where(alerts.c.id == decisions.c.alert_id, alerts.c.firing)
    pinned = exists().where(runs.c.playbook_sha == playbooks.c.sha256)
    event = controls.c.kind == Kind.BREAKER_RESET
    old_event = and_(event, controls.c.created_at < before)
    total = 0
    for table, done in (
        (runs, and_(runs.c.closed_at < before, ~held)),
        (changes, changes.c.closed_at < before),
        (notifications, notifications.c.sent_at < before),
        (alerts, ~alerts.c.firing & (alerts.c.last_seen_at < before)),
        (deliveries, deliveries.c.received_at < before),
        (decisions, and_(decisions.c.last_at < before, ~fires)),
        (controls, or_(controls.c.until < before, controls.c.lifted_at < before, old_event)),
        (playbooks, and_(playbooks.c.first_seen_at < before, ~pinned)),
    ):
        key = next(iter(table.primary_key.columns))
        chosen = select(key).where(done).limit(limit)
        total += tx.conn.execute(delete(table).where(key.in_(chosen))).rowcount
    return total
