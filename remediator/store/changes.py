"""Changes: what runs have set on targets and not given back yet.

A change outlives its run. It is written in the transaction that records the effect's outcome, so
that an effect without its change cannot exist. The surprise: a later run on the same knob takes the
row over and inherits its `base`: what the service had before anybody touched it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, exists, insert, select, update

from remediator.model.playbook import Mode
from remediator.model.run import HeldChange, Run
from remediator.store import runs
from remediator.store.database import Tx, inserted_id
from remediator.store.tables import alerts, changes, decisions
from remediator.store.tables import runs as runs_table

_COLUMNS = [changes.c[name] for name in HeldChange.__dataclass_fields__]

HELD = "held"
RESTORING = "restoring"
KEPT = "kept"  # a person stopped the restore: held, and not given back until max_hold
# A restore step that had to be undone within this time was too early (rule R4).
UNDONE_WITHIN = timedelta(minutes=5)
MAX_INTERVAL = timedelta(minutes=30)
RENEWALS_PER_LEASE = 3


@dataclass(frozen=True)
class NewChange:
    """What an effect on a knob leaves behind."""

    knob: str
    base: float
    value: float
    actuator: str
    lease: timedelta
    restore: dict[str, Any] | None
    reverts_itself: bool = True


def change_of(row: Row[Any]) -> HeldChange:
    """Turn a row into a change."""
    values = dict(row._mapping)
    values["mode"] = Mode(values["mode"])
    return HeldChange(**values)


def open_change(tx: Tx, target: str, mode: Mode, knob: str) -> HeldChange | None:
    """Return the change held on a knob, or None."""
    row = tx.conn.execute(
        select(*_COLUMNS).where(
            changes.c.target == target,
            changes.c.mode == mode,
            changes.c.knob == knob,
            changes.c.closed_at.is_(None),
        )
    ).first()
    return None if row is None else change_of(row)


def get_change(tx: Tx, change_id: int) -> HeldChange | None:
    """Return one change, or None."""
    row = tx.conn.execute(select(*_COLUMNS).where(changes.c.id == change_id)).first()
    return None if row is None else change_of(row)


def hold(tx: Tx, run: Run, new: NewChange) -> int:
    """Record that `run` set a knob; take over the row of an earlier run on it."""
    held = open_change(tx, run.target, run.mode, new.knob)
    common = {
        "value": new.value,
        "run_id": run.id,
        "playbook": run.playbook,
        "playbook_sha": run.playbook_sha,
        "alert_id": run.alert_id,
        "fencing_token": run.fencing_token,
        "lease_s": new.lease.total_seconds(),
        "lease_until": tx.now + new.lease,
        "renew_at": tx.now + new.lease / RENEWALS_PER_LEASE,
        "restore": new.restore,
        "priority": run.priority,
        "reverts_itself": new.reverts_itself,
        # Whatever step back came before is judged now, once (see `_backed_off`).
        "stepped_back_at": None,
        "state": HELD,
        "reason": "",
        "renewal_error": "",
    }
    if held is not None:
        runs.stop_restores(tx, held.id, reason=f"run R{run.id} took the change over")
        tx.conn.execute(
            update(changes)
            .where(changes.c.id == held.id)
            .values(**common, restore_interval_s=_backed_off(tx, held))
        )
        return held.id
    inserted = tx.conn.execute(
        insert(changes).values(
            **common,
            target=run.target,
            mode=run.mode,
            knob=new.knob,
            base=new.base,
            actuator=new.actuator,
            created_at=tx.now,
        )
    )
    return inserted_id(inserted)


def _backed_off(tx: Tx, held: HeldChange) -> float | None:
    # R4: a restore step undone within 5 minutes doubles the interval, up to 30 minutes.
    stepped = held.stepped_back_at
    if stepped is None or held.restore_interval_s is None or tx.now - stepped > UNDONE_WITHIN:
        return held.restore_interval_s
    return min(2 * held.restore_interval_s, MAX_INTERVAL.total_seconds())


def step_back(tx: Tx, change_id: int, *, value: float, token: int, interval: timedelta) -> None:
    """Record one restore step; close the change when its base is reached."""
    change = get_change(tx, change_id)
    if change is None:
        return
    done = value == change.base
    lease = timedelta(seconds=change.lease_s)
    tx.conn.execute(
        update(changes)
        .where(changes.c.id == change_id)
        .values(
            value=value,
            fencing_token=token,
            stepped_back_at=tx.now,
            restore_interval_s=interval.total_seconds(),
            lease_until=tx.now + lease,
            renew_at=tx.now + lease / RENEWALS_PER_LEASE,
            state="restored" if done else RESTORING,
            closed_at=tx.now if done else None,
        )
    )


def set_state(tx: Tx, change_id: int, state: str, *, reason: str = "") -> None:
    """Move an open change between held and restoring."""
    tx.conn.execute(
        update(changes)
        .where(changes.c.id == change_id, changes.c.closed_at.is_(None))
        .values(state=state, reason=reason)
    )


def close_change(tx: Tx, change_id: int, state: str, *, reason: str) -> None:
    """Stop looking after a change: rolled_back, restored, yielded or expired."""
    tx.conn.execute(
        update(changes)
        .where(changes.c.id == change_id, changes.c.closed_at.is_(None))
        .values(state=state, reason=reason, closed_at=tx.now)
    )


def take_renewals(tx: Tx, *, limit: int) -> list[HeldChange]:
    """Take the leases that are due for renewal; each is handed out once.

    Not while a process drives a run on the target: it may be setting the very value that we would
    repeat. A run that only waits is no hindrance. A renewal carries the target's newest fencing
    token, because a later run may have shown the target a newer one than the change's own run.
    """
    acting = (
        exists()
        .where(runs_table.c.target == changes.c.target, runs_table.c.mode == changes.c.mode)
        .where(runs_table.c.owner.is_not(None), runs_table.c.closed_at.is_(None))
    )
    rows = tx.conn.execute(
        select(*_COLUMNS)
        .where(changes.c.closed_at.is_(None), changes.c.renew_at <= tx.now, ~acting)
        .order_by(changes.c.renew_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    taken = []
    for row in rows:
        change = change_of(row)
        again = tx.now + timedelta(seconds=change.lease_s) / RENEWALS_PER_LEASE
        token = runs.newest_token(tx, change.target)
        tx.conn.execute(
            update(changes)
            .where(changes.c.id == change.id)
            .values(renew_at=again, renewals=change.renewals + 1, fencing_token=token)
        )
        taken.append(replace(change, fencing_token=token))
    return taken


def renewed(tx: Tx, change: HeldChange, *, error: str) -> None:
    """Record what came of a renewal."""
    values: dict[str, Any] = {"renewal_error": error}
    if not error:
        values["lease_until"] = tx.now + timedelta(seconds=change.lease_s)
    tx.conn.execute(
        update(changes)
        .where(changes.c.id == change.id, changes.c.closed_at.is_(None))
        .values(**values)
    )


def lapsed(tx: Tx) -> list[HeldChange]:
    """Return the open changes whose lease ended unrenewed: the target gives them back itself."""
    rows = tx.conn.execute(
        select(*_COLUMNS).where(changes.c.closed_at.is_(None), changes.c.lease_until < tx.now)
    )
    return [change_of(row) for row in rows]


def held_past(tx: Tx, *, max_hold: timedelta) -> list[HeldChange]:
    """Return the open changes that have been held for too long."""
    rows = tx.conn.execute(
        select(*_COLUMNS).where(
            changes.c.closed_at.is_(None), changes.c.created_at < tx.now - max_hold
        )
    )
    return [change_of(row) for row in rows]


def resolved_changes(tx: Tx) -> list[HeldChange]:
    """Return held changes whose alert is over and on whose target no run acts."""
    acting = (
        exists()
        .where(runs_table.c.target == changes.c.target, runs_table.c.mode == changes.c.mode)
        .where(runs_table.c.holds_slot)
    )
    same = alerts.alias("same")
    original = alerts.alias("original")
    firing = (
        exists()
        .where(original.c.id == changes.c.alert_id)
        .where(same.c.fingerprint == original.c.fingerprint, same.c.firing)
    )
    # Several alerts can tell the same story: all that this playbook was asked about must be over.
    also = (
        exists()
        .where(decisions.c.alert_id == alerts.c.id, alerts.c.firing)
        .where(decisions.c.playbook == changes.c.playbook)
        .where(decisions.c.target == changes.c.target)
    )
    rows = tx.conn.execute(
        select(*_COLUMNS).where(
            changes.c.closed_at.is_(None), changes.c.state == HELD, ~firing, ~also, ~acting
        )
    )
    return [change_of(row) for row in rows]


def alert_fires(tx: Tx, alert_id: int | None) -> datetime | None:
    """Return since when the fingerprint of this alert fires, or None when it does not."""
    same = alerts.alias("same")
    row = tx.conn.execute(
        select(same.c.starts_at, same.c.first_seen_at)
        .join(alerts, alerts.c.fingerprint == same.c.fingerprint)
        .where(alerts.c.id == alert_id, same.c.firing)
    ).first()
    return None if row is None else (row.starts_at or row.first_seen_at)


def took_back(tx: Tx, run: Run, *, knob: str, value: float | None) -> None:
    """Record that a rollback set a knob to `value`, or gave it back to its base (None)."""
    change = open_change(tx, run.target, run.mode, knob)
    if change is None:
        return
    if value is None or value == change.base:
        close_change(tx, change.id, "rolled_back", reason=f"run R{run.id} took it back")
        return
    tx.conn.execute(
        update(changes)
        .where(changes.c.id == change.id)
        .values(value=value, fencing_token=run.fencing_token)
    )


def open_changes(tx: Tx) -> list[HeldChange]:
    """Return every change that is held now."""
    rows = tx.conn.execute(
        select(*_COLUMNS).where(changes.c.closed_at.is_(None)).order_by(changes.c.id)
    )
    return [change_of(row) for row in rows]
