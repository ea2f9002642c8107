"""Everything that grows has an end: closed stories older than the retention are deleted."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, select

from remediator.store.database import Tx
from remediator.store.tables import alerts, changes, decisions, deliveries, notifications, runs


def forget(tx: Tx, *, older_than: timedelta, limit: int = 5000) -> int:
    """Delete at most `limit` rows a table of what ended before the retention; return how many.

    Open runs, held changes, firing alerts and unsent messages are never deleted.
    """
    before = tx.now - older_than
    total = 0
    for table, done in (
        (runs, runs.c.closed_at < before),
        (changes, changes.c.closed_at < before),
        (notifications, notifications.c.sent_at < before),
        (alerts, ~alerts.c.firing & (alerts.c.last_seen_at < before)),
        (deliveries, deliveries.c.received_at < before),
        (decisions, decisions.c.last_at < before),
    ):
        key = next(iter(table.primary_key.columns))
        chosen = select(key).where(done).limit(limit)
        total += tx.conn.execute(delete(table).where(key.in_(chosen))).rowcount
    return total
