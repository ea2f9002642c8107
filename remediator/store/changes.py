"""Changes: what runs have set on targets and not given back yet.

A change outlives its run. It is written in the transaction that records the effect's outcome, so
that an effect without its change cannot exist. The surprise: a later run on the same knob takes the
row over and inherits its `base`: what the service had before anybody touched it. And a target that
takes nothing back by itself (`reverts_itself` False) keeps its row open until we have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, exists, insert, select, update

from remediator.model.playbook import Mode
from remediator.model.run import HeldChange, Run, RunKind
from remediator.store import overrides, runs
from remediator.store.database import Tx, inserted_id
from remediator.store.tables import alerts, changes, decisions
from remediator.store.tables import runs as runs_table

_COLUMNS = [changes.c[name] for name in HeldChange.__dataclass_fields__]

HELD = "held"
RESTORING = "restoring"
KEPT = "kept"  # a person stopped the restore: held, and not given back until max_hold
# Its time is over and the target takes nothing back itself: given back as soon as it is healthy,
# whether the alert still fires or not.
OVERDUE = "overdue"
RETURNING = "returning"  # somebody stopped it: given back at once, whatever is measured
# Not renewed any more: the target takes it back itself when the lease ends, and has it until then.
LAPSING = "lapsing"
RESTORED = "restored"
# A restore step that had to be undone within this time was too early (rule R4).
UNDONE_WITHIN = timedelta(minutes=5)
MAX_INTERVAL = timedelta(minutes=30)
# After this long without one, the interval is the playbook's again (rule R4).
QUIET = timedelta(hours=1)
RENEWALS_PER_LEASE = 3


@dataclass(frozen=True)
class NewChange:
    """What an effect on a knob leaves behind; see `HeldChange` for the fields."""

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
    """Record that `run` set a knob; take over the row of an earlier run on it.

    A knob that a person pinned while the call was in flight is theirs: the row is closed at once.
    """
    change_id = _hold(tx, run, new)
    pin = overrides.pins(tx, run.target).get(new.knob)
    if pin is not None:
        close_change(tx, change_id, "yielded", reason=f"pinned by {pin.by}: {pin.reason}")
    return change_id


def _hold(tx: Tx, run: Run, new: NewChange) -> int:
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
            restore_interval_s=_inherited(tx, run, new.knob),
        )
    )
    return inserted_id(inserted)


def _inherited(tx: Tx, run: Run, knob: str) -> float | None:
    # The last step back closes the row. That it was too early must not be forgotten with it.
    given_back = [c for c in of_target(tx, run.target, run.mode) if c.knob == knob]
    return _backed_off(tx, given_back[-1]) if given_back else None


def _backed_off(tx: Tx, held: HeldChange) -> float | None:
    # R4: a restore step undone within 5 minutes doubles the interval, up to 30 minutes.
    stepped, interval = held.stepped_back_at, held.restore_interval_s
    if stepped is None or interval is None:
        return interval
    since = tx.now - stepped
    if since > QUIET:
        return None
    return min(2 * interval, MAX_INTERVAL.total_seconds()) if since <= UNDONE_WITHIN else interval


def of_target(tx: Tx, target: str, mode: Mode) -> tuple[HeldChange, ...]:
    """Return the open changes on a target and those given back less than `QUIET` ago."""
    lately = (changes.c.state == RESTORED) & (changes.c.closed_at > tx.now - QUIET)
    rows = tx.conn.execute(
        select(*_COLUMNS)
        .where(changes.c.target == target, changes.c.mode == mode)
        .where(changes.c.closed_at.is_(None) | lately)
        .order_by(changes.c.id)
    )
    return tuple(change_of(row) for row in rows)


def step_back(
    tx: Tx, change_id: int, *, value: float, token: int, interval: timedelta | None
) -> None:
    """Record one restore step; close the change when its base is reached, if it is open still.

    Args:
        tx: the transaction.
        change_id: the change.
        value: what the target has now.
        token: what the step was sent with.
        interval: time between two steps; None when it was not one of several.
    """
    change = get_change(tx, change_id)
    if change is None:
        return
    done = value == change.base
    lease = timedelta(seconds=change.lease_s)
    tx.conn.execute(
        update(changes)
        .where(changes.c.id == change_id, changes.c.closed_at.is_(None))
        .values(
            value=value,
            fencing_token=token,
            stepped_back_at=tx.now,
            restore_interval_s=interval.total_seconds() if interval else change.restore_interval_s,
            lease_until=tx.now + lease,
            renew_at=tx.now + lease / RENEWALS_PER_LEASE,
            state=RESTORED if done else change.state,
            closed_at=tx.now if done else None,
        )
    )


def give_back_now(tx: Tx, change_id: int, *, reason: str) -> int | None:
    """Give an open change back at once, whatever is measured: somebody stopped it.

    Returns:
        The restore run that does it (one that was under way goes on with it); None when the change
        is closed already.
    """
    change = get_change(tx, change_id)
    if change is None or change.closed_at is not None:
        return None
    # First the run, then its change: the order in which a restore that ends writes them.
    runs.hasten_restore(tx, change_id)
    set_state(tx, change_id, RETURNING, reason=reason)
    return open_restore(tx, change)


def open_restore(tx: Tx, change: HeldChange, *, after: timedelta = timedelta()) -> int | None:
    """Open the run that gives a change back, or return the one that does already.

    Args:
        tx: the transaction.
        change: an open change; its `state` says under which conditions.
        after: not before this much time.
    """
    known = runs.open_restore(tx, change.id)
    if known is not None:
        return known
    # Retention keeps the run of an open change for this.
    parent = runs.get_run(tx, change.run_id)
    if parent is None:
        close_change(tx, change.id, "expired", reason="its run is forgotten")
        return None
    return runs.open_run(
        tx,
        runs.NewRun(
            kind=RunKind.RESTORE,
            playbook=parent.playbook,
            playbook_sha=parent.playbook_sha,
            plan=parent.plan,
            mode=change.mode,
            priority=parent.priority,
            target=change.target,
            pool=parent.pool,
            alert_id=change.alert_id,
            holds_slot=False,
            parent_id=parent.id,
            change_id=change.id,
            due_at=tx.now + after,
        ),
    )


def set_state(tx: Tx, change_id: int, state: str, *, reason: str = "") -> None:
    """Move an open change between held, kept, restoring, overdue, returning, lapsing."""
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
        .where(changes.c.state.not_in([RETURNING, LAPSING]))
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
    """Return the open changes whose lease ended unrenewed, but for those that we give back now."""
    rows = tx.conn.execute(
        select(*_COLUMNS)
        .where(changes.c.closed_at.is_(None), changes.c.lease_until < tx.now)
        .where(changes.c.reverts_itself | changes.c.state.not_in([OVERDUE, RETURNING]))
    )
    return [change_of(row) for row in rows]


def held_past(tx: Tx, *, max_hold: timedelta) -> list[HeldChange]:
    """Return the open changes that have been held for too long, but for those that go by now."""
    rows = tx.conn.execute(
        select(*_COLUMNS)
        .where(changes.c.closed_at.is_(None), changes.c.created_at < tx.now - max_hold)
        .where(~changes.c.reverts_itself | changes.c.state.not_in([RETURNING, LAPSING]))
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
        .where(changes.c.id == change.id, changes.c.closed_at.is_(None))
        .values(value=value, fencing_token=run.fencing_token)
    )


def open_changes(tx: Tx) -> list[HeldChange]:
    """Return every change that is held now."""
    rows = tx.conn.execute(
        select(*_COLUMNS).where(changes.c.closed_at.is_(None)).order_by(changes.c.id)
    )
    return [change_of(row) for row in rows]
