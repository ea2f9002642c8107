"""What holds Remediator back: pauses by people, and being blind.

Read inside the intent transaction, so that when a pause call returns no further forward intent can
commit on any replica.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, insert, or_, select, update

from remediator.store.database import Tx, inserted_id
from remediator.store.tables import controls, signs

WATCHDOG = "watchdog"
BLIND = "blind"


@dataclass(frozen=True)
class Pause:
    """No new forward action in a scope, until it ends or is lifted."""

    id: int
    scope: str
    name: str
    reason: str
    by: str
    created_at: datetime
    until: datetime


@dataclass(frozen=True)
class Blocked:
    """Why no forward action may start: `paused` or `blind`."""

    reason: str
    detail: str


_COLUMNS = [controls.c[name] for name in Pause.__dataclass_fields__]


def add_pause(tx: Tx, *, scope: str, name: str, reason: str, by: str, length: timedelta) -> int:
    """Pause a scope: `all`, a `playbook` or a `target` by name."""
    inserted = tx.conn.execute(
        insert(controls).values(
            scope=scope,
            name=name,
            reason=reason,
            by=by,
            created_at=tx.now,
            until=tx.now + length,
        )
    )
    return inserted_id(inserted)


def lift_pauses(tx: Tx, *, scope: str, name: str, by: str) -> int:
    """Lift the active pauses of exactly this scope; return how many there were."""
    done = tx.conn.execute(
        update(controls)
        .where(controls.c.scope == scope, controls.c.name == name)
        .where(controls.c.lifted_at.is_(None), controls.c.until > tx.now)
        .values(lifted_at=tx.now, lifted_by=by)
    )
    return int(done.rowcount)


def active_pauses(tx: Tx) -> list[Pause]:
    """Return the pauses in force."""
    rows = tx.conn.execute(
        select(*_COLUMNS)
        .where(controls.c.lifted_at.is_(None), controls.c.until > tx.now)
        .order_by(controls.c.id)
    )
    return [Pause(**row._mapping) for row in rows]


def blocked(tx: Tx, *, playbook: str, target: str) -> Blocked | None:
    """Say why no forward action of `playbook` on `target` may start now, or None."""
    row = tx.conn.execute(
        select(*_COLUMNS)
        .where(controls.c.lifted_at.is_(None), controls.c.until > tx.now)
        .where(
            or_(
                controls.c.scope == "all",
                and_(controls.c.scope == "playbook", controls.c.name == playbook),
                and_(controls.c.scope == "target", controls.c.name == target),
            )
        )
        .limit(1)
    ).first()
    if row is not None:
        scope = row.scope if row.scope == "all" else f"{row.scope} {row.name}"
        return Blocked(
            reason="paused",
            detail=f"{scope} is paused by {row.by} until {row.until:%H:%M:%S} UTC: {row.reason}",
        )
    blind = last_sign(tx, BLIND)
    if blind is not None:
        return Blocked(
            reason="blind",
            detail=f"the Watchdog alert has been silent since {blind:%H:%M:%S} UTC",
        )
    return None


def give_sign(tx: Tx, name: str, *, at: datetime | None = None) -> None:
    """Note a sign of life; an older one never replaces a newer one.

    A time to come counts as now: the clock of whoever says so runs ahead of ours, and believing it
    would keep us from noticing a silence until then.
    """
    when = min(at or tx.now, tx.now)
    known = last_sign(tx, name)
    if known is None:
        tx.conn.execute(insert(signs).values(name=name, at=when))
    elif when > known:
        tx.conn.execute(update(signs).where(signs.c.name == name).values(at=when))


def clear_sign(tx: Tx, name: str) -> None:
    """Forget a sign."""
    tx.conn.execute(signs.delete().where(signs.c.name == name))


def last_sign(tx: Tx, name: str) -> datetime | None:
    """Return when a sign of life was last given, or None."""
    at: datetime | None = tx.conn.execute(
        select(signs.c.at).where(signs.c.name == name)
    ).scalar_one_or_none()
    return at


def check_watchdog(tx: Tx, *, within: timedelta | None, since: datetime) -> bool:
    """Set or clear `blind` by the age of the Watchdog's last sign; True when it just changed.

    Args:
        tx: the transaction.
        within: how long it may be silent; None = it is not watched, and nobody is blind.
        since: when this process began to listen; what was missed before that is not silence.
    """
    if within is None:
        clear_sign(tx, BLIND)
        return False
    last = last_sign(tx, WATCHDOG)
    if last is None:
        give_sign(tx, WATCHDOG)
        return False
    was_blind = last_sign(tx, BLIND) is not None
    is_silent = tx.now - last > within
    if is_silent and not was_blind and tx.now - since > within:
        give_sign(tx, BLIND, at=last)
        return True
    if was_blind and not is_silent:
        clear_sign(tx, BLIND)
        return True
    return False
