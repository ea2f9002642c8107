"""What holds Remediator back: controls set by people, and being blind.

A control is a row with a scope, a reason and a person. The surprise: it is read inside the
transaction that puts an intent on record (`steps.begin`), so that when the call that set it returns
no further forward intent can commit on any replica.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, func, insert, or_, select, update

from remediator.store.database import Tx, inserted_id
from remediator.store.tables import changes, controls, runs, signs

WATCHDOG = "watchdog"
BLIND = "blind"
# Names the one lock that orders controls and intents on PostgreSQL; any number will do.
LOCK = 0x52454D45


class Kind(StrEnum):
    """What a control does."""

    PAUSE = "pause"  # no new forward action in its scope
    KILL = "kill"  # the kill switch
    MODE = "mode"  # no bolder than this mode
    OVERRIDE = "override"  # a person's decision about guards
    PIN = "pin"  # a knob that no run moves
    BREAKER_RESET = "breaker_reset"  # an event: what failed before it no longer counts


def covers(
    scope: str,
    name: str,
    *,
    playbook: str,
    target: str,
    pool: str = "",
    actions: Iterable[str] = (),
) -> bool:
    """Say whether a scope includes a playbook on a target; who has no pool is in none."""
    match scope:
        case "all":
            return True
        case "playbook":
            return name == playbook
        case "target":
            return name == target
        case "pool":
            return bool(pool) and name == pool
        case "action":
            return name in set(actions)
        case _:
            return False


@dataclass(frozen=True)
class Control:
    """One control.

    Attributes:
        scope: all, or what `name` names: playbook, target, pool or action.
        value: what a mode, override, pin or breaker reset says besides.
        until: when it ends by itself; None = when it is lifted.
    """

    id: int
    kind: Kind
    scope: str
    name: str
    value: dict[str, Any] | None
    reason: str
    by: str
    created_at: datetime
    until: datetime | None

    def covers(
        self, *, playbook: str, target: str, pool: str = "", actions: Iterable[str] = ()
    ) -> bool:
        """Say whether it holds for a playbook on a target."""
        place = {"playbook": playbook, "target": target, "pool": pool}
        return covers(self.scope, self.name, **place, actions=actions)

    @property
    def place(self) -> str:
        """Its scope in words."""
        return self.scope if self.scope == "all" else f"{self.scope} {self.name}"

    def told(self) -> dict[str, Any]:
        """Return who holds what back, as the record of a decision shows it; JSON-ready."""
        until = None if self.until is None else self.until.isoformat()
        who = {"by": self.by, "until": until}
        return {"control": self.id, "scope": self.scope, "name": self.name, **who}

    @property
    def length(self) -> str:
        """How long it holds, in words."""
        if self.until is None:
            return "until it is lifted"
        return f"until {self.until:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True)
class Blocked:
    """Why no forward action may start: `killed`, `paused` or `blind`; JSON-ready evidence."""

    reason: str
    detail: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


_COLUMNS = [controls.c[name] for name in Control.__dataclass_fields__]


def _control_of(row: Row[Any]) -> Control:
    return Control(**{**row._mapping, "kind": Kind(row.kind)})


def in_use(tx: Tx, scope: str) -> set[str]:
    """Return the playbooks, targets or pools that open runs and held changes name."""
    held = changes.c.closed_at.is_(None)
    sources = {
        "playbook": [
            select(runs.c.playbook).where(runs.c.closed_at.is_(None)),
            select(changes.c.playbook).where(held),
        ],
        "target": [
            select(runs.c.target).where(runs.c.closed_at.is_(None)),
            select(changes.c.target).where(held),
        ],
        "pool": [
            select(runs.c.pool).where(runs.c.closed_at.is_(None), runs.c.pool != ""),
            select(runs.c.pool)
            .join(changes, changes.c.run_id == runs.c.id)
            .where(held, runs.c.pool != ""),
        ],
    }
    return {name for each in sources.get(scope, []) for name in tx.conn.execute(each).scalars()}


def put(
    tx: Tx,
    kind: Kind,
    *,
    scope: str,
    name: str,
    reason: str,
    by: str,
    until: datetime | None,
    value: dict[str, Any] | None = None,
) -> Control:
    """Set a control. It holds from the commit of this transaction on, on every replica."""
    exclude_intents(tx)
    inserted = tx.conn.execute(
        insert(controls).values(
            kind=kind,
            scope=scope,
            name=name,
            value=value,
            reason=reason,
            by=by,
            created_at=tx.now,
            until=until,
        )
    )
    row = tx.conn.execute(select(*_COLUMNS).where(controls.c.id == inserted_id(inserted))).one()
    return _control_of(row)


def in_force(tx: Tx, *kinds: Kind) -> list[Control]:
    """Return the controls in force, oldest first: of these kinds, or of every kind.

    A breaker reset is an event and never in force.
    """
    wanted = kinds or tuple(kind for kind in Kind if kind is not Kind.BREAKER_RESET)
    rows = tx.conn.execute(
        select(*_COLUMNS)
        .where(controls.c.kind.in_(wanted), controls.c.lifted_at.is_(None))
        .where(or_(controls.c.until.is_(None), controls.c.until > tx.now))
        .order_by(controls.c.id)
    )
    return [_control_of(row) for row in rows]


def lift(tx: Tx, lifted: Iterable[Control], *, by: str) -> int:
    """Lift these controls; return how many were still in force."""
    done = tx.conn.execute(
        update(controls)
        .where(controls.c.id.in_([control.id for control in lifted]))
        .where(controls.c.lifted_at.is_(None))
        .values(lifted_at=tx.now, lifted_by=by)
    )
    return int(done.rowcount)


def add_pause(tx: Tx, *, scope: str, name: str, reason: str, by: str, length: timedelta) -> Control:
    """Pause a scope: `all`, or a playbook, target, pool or action kind by name."""
    until = tx.now + length
    return put(tx, Kind.PAUSE, scope=scope, name=name, reason=reason, by=by, until=until)


def lift_pauses(tx: Tx, *, scope: str, name: str, by: str) -> int:
    """Lift the active pauses of exactly this scope; return how many there were."""
    found = [c for c in active_pauses(tx) if (c.scope, c.name) == (scope, name)]
    return lift(tx, found, by=by)


def active_pauses(tx: Tx) -> list[Control]:
    """Return the pauses in force."""
    return in_force(tx, Kind.PAUSE)


def blocked(
    tx: Tx, *, playbook: str, target: str, pool: str = "", actions: Iterable[str] = ()
) -> Blocked | None:
    """Say why no forward action of `playbook` on `target` may start now, or None.

    Args:
        tx: the transaction; on PostgreSQL it keeps controls from being set until it ends.
        playbook: its name.
        target: its name.
        pool: the target's pool, if it has one.
        actions: the kinds of action in question; a pause of any of them holds it back.
    """
    hold_still(tx)
    kinds = frozenset(actions)
    found = in_force(tx, Kind.KILL, Kind.PAUSE)
    for control in sorted(found, key=lambda one: one.kind is not Kind.KILL):
        if control.kind is Kind.KILL:
            detail = f"the kill switch was pulled by {control.by}: {control.reason}"
            return Blocked(reason="killed", detail=detail, evidence=control.told())
        if control.covers(playbook=playbook, target=target, pool=pool, actions=kinds):
            detail = f"{control.place} is paused by {control.by} {control.length}: {control.reason}"
            return Blocked(reason="paused", detail=detail, evidence=control.told())
    blind = last_sign(tx, BLIND)
    if blind is not None:
        return Blocked(
            reason="blind",
            detail=f"the Watchdog alert has been silent since {blind:%H:%M:%S} UTC",
            evidence={"silent_since": blind.isoformat()},
        )
    return None


def hold_still(tx: Tx) -> None:
    """Keep controls from being set until this transaction ends.

    SQLite has one writer at a time. On PostgreSQL an intent that has read "nothing in force" could
    commit after the control did: whoever sets one waits for those, and they for it. It comes
    before any row is locked, or two transactions could wait for each other.
    """
    if tx.conn.dialect.name == "postgresql":
        tx.conn.execute(select(func.pg_advisory_xact_lock_shared(LOCK)))


def exclude_intents(tx: Tx) -> None:
    """Wait for whoever holds controls still, and let nobody until this transaction ends."""
    if tx.conn.dialect.name == "postgresql":
        tx.conn.execute(select(func.pg_advisory_xact_lock(LOCK)))


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
