"""What a named person decided about guards, knobs and modes, and the breaker's own demotions.

Read by admission and by the intent transaction; written through the control API. The surprise: all
of it is rows of `controls`, so that one list shows everything that is in force.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import func, select, update

from remediator.model.playbook import Mode
from remediator.store import controls
from remediator.store.controls import Control, Kind
from remediator.store.database import Tx
from remediator.store.tables import changes
from remediator.store.tables import controls as table

# Who sets the caps that nobody else did.
BREAKER = "breaker"


class Ruling(StrEnum):
    """What an override decides."""

    HANDS_OFF = "hands_off"  # nothing is done here
    WAIVE = "waive"  # the named guards are not asked


# The guards that a person may waive. What protects from acting on nothing, or against a person's
# word, stays: require, pauses, the kill switch, blindness, the slot, owners, the action budget.
WAIVABLE = (
    "cooldown",
    "budget",
    "only_during",
    "not_during",
    "breaker",
    "storm",
    "blast_radius",
    "healthy_others",
    "silence",
    "not_while",
)


@dataclass(frozen=True)
class Override:
    """A person's expiring decision about a playbook, a target or a pool."""

    id: int
    scope: str
    name: str
    decision: Ruling
    guards: tuple[str, ...]
    reason: str
    by: str
    until: datetime | None


@dataclass(frozen=True)
class Pin:
    """A knob of a target that no run moves."""

    id: int
    target: str
    knob: str
    reason: str
    by: str
    until: datetime | None


@dataclass(frozen=True)
class ModeCap:
    """The boldest mode that is allowed for a playbook, a target or a pool."""

    id: int
    scope: str
    name: str
    mode: Mode
    reason: str
    by: str
    until: datetime | None


def add(
    tx: Tx,
    *,
    scope: str,
    name: str,
    decision: Ruling,
    guards: tuple[str, ...],
    reason: str,
    by: str,
    until: datetime,
) -> Control:
    """Override guards in a scope until then."""
    value = {"decision": decision.value, "guards": list(guards)}
    return controls.put(
        tx, Kind.OVERRIDE, scope=scope, name=name, reason=reason, by=by, until=until, value=value
    )


def active(tx: Tx, *, playbook: str, target: str, pool: str = "") -> list[Override]:
    """Return the overrides that hold for a playbook on a target, oldest first."""
    return [
        Override(
            id=one.id,
            scope=one.scope,
            name=one.name,
            decision=Ruling((one.value or {})["decision"]),
            guards=tuple((one.value or {})["guards"]),
            reason=one.reason,
            by=one.by,
            until=one.until,
        )
        for one in controls.in_force(tx, Kind.OVERRIDE)
        if one.covers(playbook=playbook, target=target, pool=pool)
    ]


def hands_off(tx: Tx, *, playbook: str, target: str, pool: str = "") -> Override | None:
    """Return the override by which nothing is done here, or None."""
    found = active(tx, playbook=playbook, target=target, pool=pool)
    return next((one for one in found if one.decision is Ruling.HANDS_OFF), None)


def pin(tx: Tx, *, target: str, knob: str, reason: str, by: str, until: datetime | None) -> Control:
    """Let no run move a knob; a change that is held on it is yielded, and not touched any more."""
    lift_pin(tx, target=target, knob=knob, by=by)
    put = controls.put(
        tx,
        Kind.PIN,
        scope="target",
        name=target,
        reason=reason,
        by=by,
        until=until,
        value={"knob": knob},
    )
    # After the control, which waits for calls under way: what they leave is closed as well.
    tx.conn.execute(
        update(changes)
        .where(changes.c.target == target, changes.c.knob == knob, changes.c.closed_at.is_(None))
        .values(state="yielded", reason=f"pinned by {by}: {reason}", closed_at=tx.now)
    )
    return put


def pins(tx: Tx, target: str) -> dict[str, Pin]:
    """Return the pins of a target by knob."""
    return {
        (one.value or {})["knob"]: Pin(
            id=one.id,
            target=target,
            knob=(one.value or {})["knob"],
            reason=one.reason,
            by=one.by,
            until=one.until,
        )
        for one in controls.in_force(tx, Kind.PIN)
        if one.name == target
    }


def lift_pin(tx: Tx, *, target: str, knob: str, by: str) -> int:
    """Let runs move a knob again; return how many pins there were."""
    found = [
        one
        for one in controls.in_force(tx, Kind.PIN)
        if one.name == target and (one.value or {})["knob"] == knob
    ]
    return controls.lift(tx, found, by=by)


def cap_mode(
    tx: Tx, *, scope: str, name: str, mode: Mode, by: str, reason: str, until: datetime | None
) -> Control:
    """Allow no bolder mode than this in a scope, in place of what was allowed there before."""
    lift_mode(tx, scope=scope, name=name, by=by)
    return _cap(tx, scope=scope, name=name, mode=mode, by=by, reason=reason, until=until)


def demote(tx: Tx, *, playbook: str, reason: str) -> Control:
    """Let a playbook only propose, because its breaker says so; caps that people set stay."""
    found = [c for c in _caps_of(tx, "playbook", playbook) if c.by == BREAKER]
    controls.lift(tx, found, by=BREAKER)
    return _cap(
        tx,
        scope="playbook",
        name=playbook,
        mode=Mode.PROPOSE,
        by=BREAKER,
        reason=reason,
        until=None,
    )


def _cap(
    tx: Tx, *, scope: str, name: str, mode: Mode, by: str, reason: str, until: datetime | None
) -> Control:
    return controls.put(
        tx,
        Kind.MODE,
        scope=scope,
        name=name,
        reason=reason,
        by=by,
        until=until,
        value={"mode": mode.value},
    )


def mode_caps(tx: Tx, *, playbook: str, target: str, pool: str = "") -> list[ModeCap]:
    """Return the caps that hold for a playbook on a target; the most careful of them binds."""
    return [
        ModeCap(
            id=one.id,
            scope=one.scope,
            name=one.name,
            mode=Mode((one.value or {})["mode"]),
            reason=one.reason,
            by=one.by,
            until=one.until,
        )
        for one in controls.in_force(tx, Kind.MODE)
        if one.covers(playbook=playbook, target=target, pool=pool)
    ]


def lift_mode(tx: Tx, *, scope: str, name: str, by: str) -> int:
    """Take a cap away; return how many there were."""
    return controls.lift(tx, _caps_of(tx, scope, name), by=by)


def _caps_of(tx: Tx, scope: str, name: str) -> list[Control]:
    return [c for c in controls.in_force(tx, Kind.MODE) if (c.scope, c.name) == (scope, name)]


def reset_breaker(tx: Tx, *, playbook: str, target_class: str, by: str, reason: str) -> Control:
    """Forget what failed before now for a playbook and a class of targets: a pool, or a target."""
    return controls.put(
        tx,
        Kind.BREAKER_RESET,
        scope="playbook",
        name=playbook,
        reason=reason,
        by=by,
        until=None,
        value={"class": target_class},
    )


def breaker_reset_at(tx: Tx, playbook: str, target_class: str) -> datetime | None:
    """Return when a person last reset the breaker of a playbook and a class, or None."""
    at: datetime | None = tx.conn.execute(
        select(func.max(table.c.created_at))
        .where(table.c.kind == Kind.BREAKER_RESET, table.c.name == playbook)
        .where(table.c.value["class"].as_string() == target_class)
    ).scalar_one()
    return at
