"""Which slot of each schedule has been taken: one row a schedule, moved by compare-and-set.

Every replica looks at the same slots; the one that moves the row has the slot.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from remediator.store.database import Tx
from remediator.store.tables import schedules


def taken(tx: Tx, name: str) -> datetime | None:
    """Return the newest slot that somebody has taken, or None when the schedule is new."""
    at: datetime | None = tx.conn.execute(
        select(schedules.c.slot_at).where(schedules.c.name == name)
    ).scalar_one_or_none()
    return at


def take(tx: Tx, name: str, slot: datetime) -> bool:
    """Take a slot; False when it, or a later one, is taken."""
    moved = tx.conn.execute(
        update(schedules)
        .where(schedules.c.name == name, schedules.c.slot_at < slot)
        .values(slot_at=slot)
    )
    if moved.rowcount == 1:
        return True
    if taken(tx, name) is not None:
        return False
    try:
        with tx.conn.begin_nested():
            tx.conn.execute(insert(schedules).values(name=name, slot_at=slot, served_at=tx.now))
    except IntegrityError:
        return False
    return True


def serve(tx: Tx, served: list[str], *, forget_after: timedelta) -> None:
    """Note which schedules this replica serves, and forget those that nobody has for so long."""
    tx.conn.execute(
        update(schedules)
        .where(schedules.c.name.in_(served), schedules.c.served_at <= tx.now - forget_after / 6)
        .values(served_at=tx.now)
    )
    tx.conn.execute(delete(schedules).where(schedules.c.served_at <= tx.now - forget_after))


def names(tx: Tx) -> list[str]:
    """Return the schedules that some replica serves, or did a moment ago."""
    return list(tx.conn.execute(select(schedules.c.name)).scalars())
