"""Messages to people, kept until they are delivered.

A message is queued in the transaction of the event it tells about, so that neither can exist
without the other; sending comes later and is repeated until it works. The key is stable: the same
event queued twice is one message.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import insert, select, update

from remediator.model.effect import Message
from remediator.store.database import Tx
from remediator.store.tables import alerts, notifications, runs

FIRST_RETRY = timedelta(seconds=5)
LONGEST_RETRY = timedelta(minutes=15)


def queue(tx: Tx, message: Message, *, run_id: int | None = None) -> bool:
    """Queue a message; False when the same event is queued or told already.

    Without a `dedup` of its own it gets that of the run's story: the alert and the target.
    """
    known = tx.conn.execute(
        select(notifications.c.key).where(notifications.c.key == message.key)
    ).first()
    if known is not None:
        return False
    tx.conn.execute(
        insert(notifications).values(
            key=message.key,
            severity=message.severity,
            title=message.title,
            body=message.body,
            dedup=message.dedup or _story(tx, run_id) or message.key,
            run_id=run_id,
            created_at=tx.now,
            due_at=tx.now,
            attempts=0,
        )
    )
    return True


def queued_since(tx: Tx, prefix: str, *, since: datetime) -> bool:
    """Say whether a message whose key begins like this was queued after `since`."""
    found = tx.conn.execute(
        select(notifications.c.key)
        .where(notifications.c.key.startswith(prefix, autoescape=True))
        .where(notifications.c.created_at > since)
        .limit(1)
    ).first()
    return found is not None


def _story(tx: Tx, run_id: int | None) -> str:
    """Return what all messages about one alert on one target share, whichever run they tell of."""
    row = tx.conn.execute(
        select(runs.c.target, alerts.c.fingerprint)
        .join_from(runs, alerts, runs.c.alert_id == alerts.c.id, isouter=True)
        .where(runs.c.id == run_id)
    ).first()
    return "" if row is None else f"{row.fingerprint or 'no-alert'}/{row.target}"


def take_due(tx: Tx, *, limit: int) -> list[Message]:
    """Take messages that are due, and push their next try back, so that each is tried once."""
    rows = tx.conn.execute(
        select(notifications)
        .where(notifications.c.due_at <= tx.now)
        .order_by(notifications.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    for row in rows:
        wait = min(FIRST_RETRY * 2 ** min(row.attempts, 10), LONGEST_RETRY)
        tx.conn.execute(
            update(notifications)
            .where(notifications.c.key == row.key)
            .values(due_at=tx.now + wait, attempts=row.attempts + 1)
        )
    return [
        Message(
            key=row.key,
            severity=row.severity,
            title=row.title,
            body=row.body,
            dedup=row.dedup,
        )
        for row in rows
    ]


def told(tx: Tx, key: str) -> None:
    """Note that the message was delivered."""
    tx.conn.execute(
        update(notifications)
        .where(notifications.c.key == key)
        .values(sent_at=tx.now, due_at=None, error="")
    )


def not_told(tx: Tx, key: str, *, error: str) -> None:
    """Note why the message was not delivered; it stays due."""
    tx.conn.execute(update(notifications).where(notifications.c.key == key).values(error=error))
